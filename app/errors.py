"""Errors of the domain. `app.api.response.problems` maps each to its status.

GatewayError
├── InvalidInput
│   ├── InvalidImage            invalid_image
│   ├── InvalidVideo            invalid_video
│   ├── InvalidParameter        invalid_parameter
│   ├── PromptTooLong           prompt_too_long
│   └── UnsupportedMediaType    unsupported_media_type
├── TooLarge
│   ├── PayloadTooLarge         payload_too_large
│   ├── ImageTooLarge           image_too_large
│   └── VideoTooLong            video_too_long
├── Unauthorized                unauthorized
├── Forbidden                   forbidden
├── ModelNotFound               model_not_found
├── SessionNotFound             session_not_found
├── SessionConflict             session_conflict
├── SessionsUnavailable         sessions_unavailable
├── VideoNotFound               video_not_found
├── VideosUnavailable           videos_unavailable
├── RateLimited                 rate_limited
├── Overloaded                  overloaded
├── DeadlineExceeded            deadline_exceeded
├── ShuttingDown                shutting_down
└── BackendError
    ├── TritonUnavailable       triton_unavailable
    ├── SeveralServers          several_servers
    ├── ModelNotReady           model_not_ready
    ├── WeightsMissing          weights_missing
    ├── InsufficientGpuMemory   insufficient_gpu_memory
    └── InferenceFailed         inference_failed
"""

from __future__ import annotations

LONGEST_DETAIL = 2000  # characters; a caller's own words may be part of it


class GatewayError(Exception):
    """Base of all that the gateway raises on purpose.

    `code` is the problem code of the API, `title` says what kind of failure it is, the message what happened,
    and `hint` what the caller can do about it. `retry_after` is in seconds, where waiting helps.
    """

    code: str
    title: str
    hint: str

    def __init__(self, detail: str, *, hint: str | None = None, retry_after: float | None = None) -> None:
        self.detail = _sayable(detail)
        super().__init__(self.detail)
        self.retry_after = retry_after
        if hint is not None:
            self.hint = hint


def _sayable(detail: str) -> str:
    """The text, cut to a length that an answer can have, and without what UTF-8 can't write."""
    if len(detail) > LONGEST_DETAIL:
        detail = f"{detail[:LONGEST_DETAIL]}…"
    return detail if detail.isascii() else detail.encode("utf-8", "replace").decode("utf-8")


class InvalidInput(GatewayError):
    """The bytes or values can't be used."""


class InvalidImage(InvalidInput):
    code = "invalid_image"
    title = "The picture can't be read"
    hint = "Send one complete JPEG, PNG, WebP or BMP picture."


class InvalidVideo(InvalidInput):
    code = "invalid_video"
    title = "The video can't be read"
    hint = "Send one complete MP4, MOV, Matroska, WebM or AVI file with a video stream."


class InvalidParameter(InvalidInput):
    code = "invalid_parameter"
    title = "A parameter can't be used"
    hint = "See /docs for the parameters and GET /v1/branches for what can be served."


class PromptTooLong(InvalidInput):
    code = "prompt_too_long"
    title = "A prompt has too many tokens"
    hint = "Shorten it, or let it be cut with tokens=truncate."


class UnsupportedMediaType(InvalidInput):
    code = "unsupported_media_type"
    title = "This kind of content is not supported"
    hint = "Send a JPEG, PNG, WebP or BMP picture; the type is detected from the content, not the name."


class TooLarge(GatewayError):
    """More than a limit allows."""


class PayloadTooLarge(TooLarge):
    code = "payload_too_large"
    title = "The request is too large"
    hint = "Send fewer or smaller files a request."


class ImageTooLarge(TooLarge):
    code = "image_too_large"
    title = "The picture has too many pixels"
    hint = "Scale the picture down before sending it."


class VideoTooLong(TooLarge):
    code = "video_too_long"
    title = "The video is too long"
    hint = "Cut it with start and end, sample fewer frames with fps or every, or send it to POST /v1/videos."


class Unauthorized(GatewayError):
    code = "unauthorized"
    title = "No valid API key"
    hint = "Send a key as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'; who runs the gateway hands them out."


class Forbidden(GatewayError):
    code = "forbidden"
    title = "The API key may not do this"
    hint = "Ask who runs the gateway for a key with the scope that the detail names."


class ModelNotFound(GatewayError):
    code = "model_not_found"
    title = "No such model"
    hint = "GET /v1/branches lists the branches; `make models` in a checkout builds them."


class SessionNotFound(GatewayError):
    code = "session_not_found"
    title = "No such session"
    hint = "A session begins with its first frame and ends when it has been idle for too long."


class SessionConflict(GatewayError):
    code = "session_conflict"
    title = "The session can't go on like this"
    hint = "Keep a session's parameters and send its frames in order, or begin again with DELETE /v1/sessions/{id}."


class SessionsUnavailable(GatewayError):
    code = "sessions_unavailable"
    title = "Sessions can't be served now"
    hint = "With several workers, sessions need Redis: GATEWAY_SESSION_STORE=redis://host:6379."


class VideoNotFound(GatewayError):
    code = "video_not_found"
    title = "No such video"
    hint = "POST /v1/videos answers the id; finished videos are kept for a limited time."


class VideosUnavailable(GatewayError):
    code = "videos_unavailable"
    title = "Videos can't be taken now"
    hint = "The service needs room on its disk: GATEWAY_SPOOL_FOLDER, and GATEWAY_VIDEOS_FOLDER for jobs."


class RateLimited(GatewayError):
    code = "rate_limited"
    title = "The API key's rate limit is reached"
    hint = "Send it again after the time in Retry-After, and fewer requests a second; a batch is one request."


class Overloaded(GatewayError):
    code = "overloaded"
    title = "The queue is full"
    hint = "Send it again after the time in Retry-After, with fewer requests in flight."


class DeadlineExceeded(GatewayError):
    """`stage` is where the time ran out: receive, decode, queue, prepare, infer, finish or encode."""

    code = "deadline_exceeded"
    title = "The time for this request ran out"
    hint = "Allow more time with X-Request-Timeout (seconds), or send less at once."

    def __init__(self, stage: str) -> None:
        super().__init__(f"the time ran out in stage '{stage}'; the work was cancelled")
        self.stage = stage


class ShuttingDown(GatewayError):
    """The service ends before the request is answered."""

    code = "shutting_down"
    title = "The service is shutting down"
    hint = "Send the request again; another replica, or this one after its restart, answers it."


class BackendError(GatewayError):
    """The backend can't serve now."""


class TritonUnavailable(BackendError):
    code = "triton_unavailable"
    title = "Triton can't be reached"
    hint = "Check that Triton runs at the configured address; GET /readyz says what fails."


class SeveralServers(BackendError):
    code = "several_servers"
    title = "Several Tritons answer at one address"
    hint = (
        "Tell who runs the gateway: one gateway needs the address of one Triton. "
        "A balancer belongs in front of several gateways."
    )


class ModelNotReady(BackendError):
    code = "model_not_ready"
    title = "The model is not ready"
    hint = "GET /v1/repository says what is missing; `fallback=true` allows the next smaller branch."


class WeightsMissing(BackendError):
    code = "weights_missing"
    title = "The model has no weights"
    hint = "Build them with `make models` in a checkout."


class InsufficientGpuMemory(BackendError):
    code = "insufficient_gpu_memory"
    title = "The GPU has too little memory for this branch"
    hint = (
        "Ask for a smaller branch, or allow one with `fallback=true`. "
        "Where there is a Retry-After, the branch is being reloaded."
    )


class InferenceFailed(BackendError):
    code = "inference_failed"
    title = "The model failed on this input"
    hint = "The detail is the backend's own message; its log has more."


def by_code(code: str) -> type[GatewayError]:
    """The error type of a problem code that routing answers with."""
    return _BY_CODE[code]


_BY_CODE: dict[str, type[GatewayError]] = {
    error.code: error
    for error in (
        InvalidParameter,
        ModelNotFound,
        ModelNotReady,
        WeightsMissing,
        InsufficientGpuMemory,
        TritonUnavailable,
        SeveralServers,
    )
}
