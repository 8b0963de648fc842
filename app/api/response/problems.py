"""The one table from error type to status, and `application/problem+json` (RFC 9457) answers."""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from app import errors
from app.api.response import openai_errors
from app.api.server.security_headers import SECURITY
from app.context import note_problem
from app.documents import clipped

_log = logging.getLogger(__name__)
_JSON = "application/json"
_MOST_FAULTS = 10  # that one answer lists

STATUS: Mapping[type[errors.GatewayError], int] = {
    errors.InvalidImage: 400,
    errors.InvalidVideo: 400,
    errors.InvalidParameter: 400,
    errors.UrlRefused: 422,
    errors.PromptTooLong: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.ModelNotFound: 404,
    errors.SessionNotFound: 404,
    errors.VideoNotFound: 404,
    errors.SessionConflict: 409,
    errors.PayloadTooLarge: 413,
    errors.ImageTooLarge: 413,
    errors.VideoTooLong: 413,
    errors.UnsupportedMediaType: 415,
    errors.RateLimited: 429,
    errors.Overloaded: 429,
    errors.InferenceFailed: 502,
    errors.TritonUnavailable: 503,
    errors.SeveralServers: 503,
    errors.ModelNotReady: 503,
    errors.WeightsMissing: 503,
    errors.InsufficientGpuMemory: 503,
    errors.SessionsUnavailable: 503,
    errors.VideosUnavailable: 503,
    errors.InvalidCursor: 422,
    errors.IdempotencyKeyReused: 422,
    errors.IdempotencyKeyInUse: 409,
    errors.SourceNotAllowed: 422,
    # These end a job, which is where callers read them.
    errors.SourceRefused: 502,
    errors.SourceUnreachable: 502,
    errors.SourceTooLarge: 413,
    errors.SourceTimeout: 504,
    errors.ShuttingDown: 503,
    errors.DeadlineExceeded: 504,
}
# Errors of the operating system that pass, wherever they are met: no descriptors, no memory, no room on a disk.
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT}
_SHORT = "the service has run out of file descriptors, memory or disk space"
_HTTP = {
    400: ("invalid_request", "The request breaks HTTP", "Send requests as RFC 9112 defines them."),
    404: ("not_found", "No such path", "GET /docs lists the paths."),
    405: ("method_not_allowed", "Not with this method", "GET /docs lists the methods of every path."),
    406: ("not_acceptable", "No such form of the answer", "Ask for application/json in Accept."),
    416: ("range_not_satisfiable", "No such range", "Ask for a range within the length in Content-Range."),
}


class NotAcceptable(HTTPException):
    """No form in Accept is one that this route answers in."""

    def __init__(self, offered: tuple[str, ...]) -> None:
        super().__init__(406, f"this route answers as {', '.join(offered)}")


class CallerGone(HTTPException):
    """Nobody is there to read the answer; the status is for the counters."""

    def __init__(self) -> None:
        super().__init__(499, "the caller closed the connection")


def problem(error: errors.GatewayError, request_id: str) -> dict[str, Any]:
    """The problem object of a domain error."""
    body: dict[str, Any] = {
        "type": f"urn:gateway:problem:{error.code}",
        "title": error.title,
        "status": STATUS[type(error)],
        "detail": error.detail,
        "code": error.code,
        "what_to_do": error.hint,
        "request_id": request_id,
    }
    if isinstance(error, errors.DeadlineExceeded):
        body["stage"] = error.stage
    note_problem(error.code)
    return body


def answer(request: Request, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Answer a problem; on the route of OpenAI's clients, in their form."""
    if request.scope["path"] == openai_errors.PATH:
        return Response(
            orjson.dumps(openai_errors.openai_error(body)), body["status"], headers, media_type=_JSON
        )
    return Response(
        orjson.dumps(body, default=str), body["status"], headers, media_type="application/problem+json"
    )


def install(app: FastAPI, routes: Iterable[BaseRoute]) -> None:
    """Answer every failure of `app`, which serves `routes`, as a problem."""
    allowed = _allowed(routes)

    async def http_error(request: Request, error: Exception) -> Response:
        response = await _http_error(request, error)
        path = getattr(request.scope.get("route"), "path", "")
        if response.status_code == 405 and path in allowed:  # Starlette names the methods of one route only
            response.headers["Allow"] = allowed[path]
        return response

    app.add_exception_handler(errors.GatewayError, _gateway_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, _bug)


def _allowed(routes: Iterable[BaseRoute]) -> dict[str, str]:
    """Return the value of `Allow` for each path; GET serves HEAD, too (`app.api.server.head`)."""
    methods: dict[str, set[str]] = {}
    for route in routes:
        if isinstance(route, Route):
            methods.setdefault(route.path, set()).update(route.methods or ())
    return {
        path: ", ".join(sorted(served | {"HEAD"} if "GET" in served else served))
        for path, served in methods.items()
    }


EXPECTED = (errors.GatewayError, RequestValidationError, HTTPException)


async def expected(request: Request, error: Exception) -> Response:
    """The answer to one of `EXPECTED`."""
    if isinstance(error, errors.GatewayError):
        return await _gateway_error(request, error)
    if isinstance(error, RequestValidationError):
        return await _validation_error(request, error)
    return await _http_error(request, error)


async def refusal(scope: Scope, error: errors.GatewayError | HTTPException) -> Response:
    """The answer of a middleware, which stands outside of the handlers that `install` sets."""
    return await expected(Request(scope), error)


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.GatewayError)  # noqa: S101  # how Starlette calls handlers
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return answer(request, problem(error, request_id_of(request)), headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # how Starlette calls handlers
    found = error.errors()
    faults = [
        {"where": ".".join(clipped(str(part)) for part in fault["loc"]), "what": clipped(fault["msg"], 200)}
        for fault in found[:_MOST_FAULTS]
    ]
    more = [f"and {len(found) - _MOST_FAULTS} more"] if len(found) > _MOST_FAULTS else []
    body = _problem(request, 422, "validation_failed", "The request doesn't fit its description")
    body["detail"] = "; ".join([*(f"{fault['where']}: {fault['what']}" for fault in faults), *more])
    body["errors"] = faults
    body["what_to_do"] = "GET /docs says what each parameter takes."
    return answer(request, body)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # how Starlette calls handlers
    code, title, hint = _HTTP.get(error.status_code, ("http_error", "The request failed", ""))
    body = _problem(request, error.status_code, code, title)
    body |= {"detail": str(error.detail), "what_to_do": hint}
    return answer(request, body, error.headers)


async def _bug(request: Request, error: Exception) -> Response:
    """Answer an unexpected exception with 500; the log has its traceback under the request's id."""
    if isinstance(error, OSError) and error.errno in _SHORTAGES:
        short = errors.Overloaded(_SHORT, hint="Retry after the time in Retry-After.", retry_after=5)
        response = await _gateway_error(request, short)
        response.headers.update({"X-Request-Id": request_id_of(request), **SECURITY})
        return response
    _log.error("request %s failed", request_id_of(request), exc_info=error)
    body = _problem(request, 500, "internal_error", "The gateway has a defect")
    body |= {"detail": type(error).__name__, "what_to_do": "Report it with the request_id and the log."}
    # Starlette sends this answer outside the middleware that adds the headers.
    return answer(request, body, {"X-Request-Id": body["request_id"], **SECURITY})


def _problem(request: Request, status: int, code: str, title: str) -> dict[str, Any]:
    note_problem(code)
    return {
        "type": f"urn:gateway:problem:{code}",
        "title": title,
        "status": status,
        "code": code,
        "request_id": request_id_of(request),
    }


def request_id_of(request: Request) -> str:
    return str(request.scope.get("request_id", ""))
