"""Exceptions. Each has the fields of the service's problem answer (RFC 9457), where there is one.

GatewayError
├── InvalidRequest          400, 405, 406, 416, 422: the bytes or values can't be used
│   ├── TooLarge            413
│   └── UnsupportedMedia    415
├── Unauthorized            401: no key, or none that is known
├── Forbidden               403: the key lacks the scope
├── NotFound                404: no such model, session, job or path
├── Conflict                409: the frame contradicts its session
├── RateLimited             429: the key's rate is used up
├── Overloaded              429: the service's queue is full
├── Unavailable             503: the backend or the storage can't serve now
├── DeadlineExceeded        504, or the time that you allowed has passed here
├── ServerError             any other 5xx, such as 502 inference_failed
├── ConnectionFailed        no complete answer
│   └── StreamInterrupted   the lines of a video broke off; `frames` have come
├── VideoIncomplete         the video itself broke off; `frames` have come, `summary` describes them
├── JobFailed               the job ended as failed; `job` has its state
└── UnexpectedAnswer        not an answer of the gateway, or not one that this version reads
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triton_vision_gateway_client.answers.jobs import Job
    from triton_vision_gateway_client.answers.videos import VideoSummary

_ADDRESS = "Check that the address is that of a gateway."
_LONGEST_TEXT = 200  # characters of an answer that is no problem


class GatewayError(Exception):
    """Base of all exceptions of this package.

    `code` is the problem code of the service, or one of this package: `connection_failed`, `stream_interrupted`,
    `deadline_exceeded`, `video_incomplete`, `unexpected_answer`. `status` is the HTTP status, None without an answer.
    `retry_after` is in seconds, None if the service doesn't say that waiting helps.
    """

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        what_to_do: str = "",
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.what_to_do = what_to_do

    def __str__(self) -> str:
        where = self.code if self.status is None else f"{self.status} {self.code}"
        hint = f" {self.what_to_do}" if self.what_to_do else ""
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{where}: {self.detail.rstrip('.')}.{hint}{request}"


class InvalidRequest(GatewayError):
    """Bytes or values that the service can't use."""


class TooLarge(InvalidRequest):
    """A body, a picture or a video beyond a limit of the service."""


class UnsupportedMedia(InvalidRequest):
    """Content that is no picture or video that the service reads."""


class Unauthorized(GatewayError):
    """No key, or none that the service knows."""


class Forbidden(GatewayError):
    """A key without the scope that this route needs."""


class NotFound(GatewayError):
    """No such model, session, job or path."""


class Conflict(GatewayError):
    """A frame that contradicts its session: other parameters, another size, or an earlier time."""


class RateLimited(GatewayError):
    """The key's rate is used up; `retry_after` says for how long."""


class Overloaded(GatewayError):
    """The queue of the service is full."""


class Unavailable(GatewayError):
    """The backend, a model or the storage can't serve now."""


class DeadlineExceeded(GatewayError):
    """The time for the call has passed, here (`status` None) or in the service (504)."""


class ServerError(GatewayError):
    """Any other failure of the service."""


class ConnectionFailed(GatewayError):
    """No complete answer came. `sent` is False if the request certainly never reached the service."""

    def __init__(self, detail: str, *, sent: bool, code: str = "connection_failed") -> None:
        super().__init__(detail, code=code)
        self.sent = sent


class StreamInterrupted(ConnectionFailed):
    """The lines of a video broke off before its summary; `frames` is the number that came."""

    def __init__(self, detail: str, frames: int) -> None:
        super().__init__(f"{detail}; {frames} frames came before", sent=True, code="stream_interrupted")
        self.frames = frames


class VideoIncomplete(GatewayError):
    """The video could be read only in part: `frames` came, `summary` describes them, `code` says what is wrong."""

    def __init__(self, fault: GatewayError, frames: int, summary: VideoSummary) -> None:
        super().__init__(
            f"{fault.detail}; {frames} frames came before",
            code=fault.code,
            status=fault.status,
            request_id=fault.request_id,
            what_to_do=fault.what_to_do,
        )
        self.frames = frames
        self.summary = summary


class JobFailed(GatewayError):
    """A job that ended as `failed`; `job` is its last state."""

    def __init__(self, job: Job) -> None:
        code, detail = (
            ("failed", "the job failed") if job.error is None else (job.error.code, job.error.detail)
        )
        super().__init__(f"job {job.id}: {detail}", code=code)
        self.job = job


class UnexpectedAnswer(GatewayError):
    """An answer that isn't the gateway's, or that this version of the client can't read."""

    def __init__(self, detail: str, status: int | None = None, what_to_do: str = _ADDRESS) -> None:
        super().__init__(detail, code="unexpected_answer", status=status, what_to_do=what_to_do)


_BY_STATUS: Mapping[int, type[GatewayError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: InvalidRequest,
    406: InvalidRequest,
    409: Conflict,
    413: TooLarge,
    415: UnsupportedMedia,
    416: InvalidRequest,
    422: InvalidRequest,
    429: Overloaded,
    503: Unavailable,
    504: DeadlineExceeded,
}
_FIRST_ERROR, _FIRST_SERVER_ERROR = 400, 500
# OpenAI's own words for two codes, which the one route in their form uses.
_OPENAI_CODES = {"invalid_api_key": "unauthorized", "rate_limit_exceeded": "rate_limited"}


def from_answer(status: int, headers: Mapping[str, str], content: bytes) -> GatewayError:
    """Return the exception that an answer other than 2xx stands for; header names are in lower case."""
    if status < _FIRST_ERROR:
        where = headers.get("location", "nowhere")
        return UnexpectedAnswer(
            f"status {status} leads to {where[:_LONGEST_TEXT]}; redirects aren't followed", status
        )
    problem = _problem(content)
    if problem is None:
        text = content[: 4 * _LONGEST_TEXT].decode("utf-8", "replace").strip()[:_LONGEST_TEXT]
        problem = {"code": f"http_{status}", "detail": text or "an answer without a problem"}
    fallback = {"status": status, "request_id": headers.get("x-request-id")}
    return from_problem({**fallback, **problem}, retry_after_of(headers))


def from_problem(problem: Mapping[str, Any], retry_after: float | None = None) -> GatewayError:
    """Return the exception that a problem object stands for."""
    status, code = problem.get("status"), str(problem.get("code", "unknown"))
    if not isinstance(status, int):
        status = None
    kind = _kind(status, code)
    detail = str(problem.get("detail") or problem.get("title") or code)
    request_id = problem.get("request_id")
    more: dict[str, Any] = {
        "code": code,
        "status": status,
        "request_id": None if request_id is None else str(request_id),
        "retry_after": retry_after,
        "what_to_do": str(problem.get("what_to_do") or ""),
    }
    return kind(detail, **more)


def _kind(status: int | None, code: str) -> type[GatewayError]:
    if code == "rate_limited":
        return RateLimited
    if status is None:
        return ServerError
    return _BY_STATUS.get(status, ServerError if status >= _FIRST_SERVER_ERROR else InvalidRequest)


def is_foreign(error: GatewayError) -> bool:
    """Return whether the answer was no problem of the gateway: a proxy in between wrote it."""
    return error.code == f"http_{error.status}"


def _problem(content: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(content)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    if "code" in document:
        return document
    error = document.get("error")
    if isinstance(error, dict) and "message" in error:  # the form of OpenAI's API
        code = str(error.get("code"))
        return {"code": _OPENAI_CODES.get(code, code), "detail": str(error["message"])}
    return None


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks for: a number, or a date (RFC 9110, 10.2.3).

    A date is compared with the answer's own `Date`, so that a wrong clock here changes nothing.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text)
    moment = _seconds_of(text)
    if moment is None:
        return None
    now = _seconds_of(headers.get("date", ""))
    return max(0.0, moment - (time.time() if now is None else now))


def _seconds_of(date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
