"""Calls about the service, its catalogue and its sessions."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from triton_vision_gateway_client.answers.decode import decode
from triton_vision_gateway_client.answers.status import (
    Branches,
    Failing,
    Readiness,
    Repository,
    Session,
    Versions,
)
from triton_vision_gateway_client.calls.base import Call, Received, Request, query_of, timeout_in
from triton_vision_gateway_client.calls.frames import Options
from triton_vision_gateway_client.errors import UnexpectedAnswer
from triton_vision_gateway_client.retries import Repeat
from triton_vision_gateway_client.version import __version__


def livez(options: Options) -> Call[None]:
    """Build the call for liveness."""
    request = Request(method="GET", path="/livez", timeout=timeout_in(options), repeat=Repeat.NEVER)
    return Call(request=request, parse=_nothing)


def readyz(options: Options) -> Call[Readiness]:
    """Build the call for readiness; 503 is an answer, not an error."""
    request = Request(
        method="GET", path="/readyz", timeout=timeout_in(options), good=(200, 503), repeat=Repeat.NEVER
    )
    return Call(request=request, parse=_readiness)


def _readiness(received: Received) -> Readiness:
    document = received.object()
    if "failing" not in document:
        raise UnexpectedAnswer("the answer says nothing about readiness", received.status)
    failing = tuple(decode(Failing, row) for row in document["failing"])
    return Readiness(ready=document.get("status") == "ok", failing=failing)


def metrics(options: Options) -> Call[str]:
    """Build the call for metrics."""
    request = Request(method="GET", path="/metrics", accept="text/plain", timeout=timeout_in(options))
    return Call(request=request, parse=lambda received: received.content.decode("utf-8"))


def openapi(options: Options) -> Call[dict[str, Any]]:
    """Build the call for the service's description."""
    return Call(request=_get("/openapi.json", options), parse=Received.object)


def versions(options: Options) -> Call[Versions]:
    """Build the call for the service's version."""
    return Call(request=_get("/openapi.json", options), parse=_versions)


def _versions(received: Received) -> Versions:
    try:
        return Versions(service=str(received.object()["info"]["version"]), client=__version__)
    except (KeyError, TypeError) as error:
        raise UnexpectedAnswer("the description names no version", received.status) from error


def branches(options: Options) -> Call[Branches]:
    """Build the call for the catalogue."""
    request = Request(method="GET", path="/v1/branches", query=query_of(options), timeout=timeout_in(options))
    return Call(request=request, parse=lambda received: decode(Branches, received.json()))


def repository(options: Options) -> Call[Repository]:
    """Build the call for the repository."""
    return Call(
        request=_get("/v1/repository", options),
        parse=lambda received: decode(Repository, received.json()),
    )


def session(session_id: str, owner: str | None, options: Options) -> Call[Session]:
    """Build the call for a session's state."""
    request = Request(
        method="GET",
        path=_session_path(session_id),
        query=query_of({}, owner=owner),
        timeout=timeout_in(options),
    )
    return Call(request=request, parse=lambda received: decode(Session, received.json()))


def delete_session(session_id: str, owner: str | None, options: Options) -> Call[None]:
    """Build the call that ends a session."""
    request = Request(
        method="DELETE",
        path=_session_path(session_id),
        query=query_of({}, owner=owner),
        timeout=timeout_in(options),
        gone_is_done=True,
    )
    return Call(request=request, parse=_nothing)


def _session_path(session_id: str) -> str:
    return f"/v1/sessions/{quote(session_id, safe='')}"


def _get(path: str, options: Options) -> Request:
    return Request(method="GET", path=path, timeout=timeout_in(options))


def _nothing(_: Received) -> None:
    return None
