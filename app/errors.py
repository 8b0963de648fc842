"""Errors of the domain. `app.api.response.problems` maps each to its status.

GatewayError
├── InvalidInput
│   ├── InvalidImage            invalid_image
│   ├── InvalidVideo            invalid_video
│   ├── InvalidParameter        invalid_parameter
│   ├── UrlRefused              url_refused
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
├── InvalidCursor               invalid_cursor
├── IdempotencyKeyReused        idempotency_key_reused
├── IdempotencyKeyInUse         idempotency_key_in_use
├── SourceFailed
│   ├── SourceNotAllowed        source_not_allowed
│   ├── SourceRefused           source_refused
│   ├── SourceUnreachable       source_unreachable
│   ├── SourceTooLarge          source_too_large
│   └── SourceTimeout           source_timeout
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
    """Base of all errors that the gateway raises on purpose.

    `code` is the problem code of the API. `title` names the kind of failure, the message describes this failure, and
    `hint` tells the caller what to do. `retry_after` is in seconds; None if waiting does not help.
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
    """Return the text, cut to the longest allowed length, without characters that UTF-8 can't encode."""
    if len(detail) > LONGEST_DETAIL:
        detail = f"{detail[:LONGEST_DETAIL]}…"
    return detail if detail.isascii() else detail.encode("utf-8", "replace").decode("utf-8")


class InvalidInput(GatewayError):
    """Bytes or values that can't be used."""


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
    hint = "See /docs for the parameters and GET /v1/branches for the available branches."


class UrlRefused(InvalidInput):
    code = "url_refused"
    title = "The gateway may not call this URL"
    hint = "Ask the operator of the gateway which hosts it may call."


class PromptTooLong(InvalidInput):
    code = "prompt_too_long"
    title = "A prompt has too many tokens"
    hint = "Shorten the prompt, or set tokens=truncate to have it cut."


class UnsupportedMediaType(InvalidInput):
    code = "unsupported_media_type"
    title = "This kind of content is not supported"
    hint = "Send a JPEG, PNG, WebP or BMP picture; the type is detected from the content, not the name."


class TooLarge(GatewayError):
    """Input that exceeds a limit."""


class PayloadTooLarge(TooLarge):
    code = "payload_too_large"
    title = "The request is too large"
    hint = "Send fewer or smaller files per request."


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
    hint = "Send a key as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'; ask the operator of the gateway for one."


class Forbidden(GatewayError):
    code = "forbidden"
    title = "The API key is not allowed to do this"
    hint = "Ask the operator of the gateway for a key with the scope that the detail names."


class ModelNotFound(GatewayError):
    code = "model_not_found"
    title = "No such model"
    hint = "GET /v1/branches lists the branches; `make models` in a checkout builds them."


class SessionNotFound(GatewayError):
    code = "session_not_found"
    title = "No such session"
    hint = "Send a frame with this session to start it; a session ends after its idle timeout."


class SessionConflict(GatewayError):
    code = "session_conflict"
    title = "The request conflicts with the session"
    hint = "Keep the session's parameters and send its frames in order, or delete it with DELETE /v1/sessions/{id}."


class SessionsUnavailable(GatewayError):
    code = "sessions_unavailable"
    title = "Sessions are unavailable"
    hint = "With several workers, sessions need Redis: GATEWAY_SESSION_STORE=redis://host:6379."


class VideoNotFound(GatewayError):
    code = "video_not_found"
    title = "No such video"
    hint = "POST /v1/videos returns the id; finished videos are kept for a limited time."


class VideosUnavailable(GatewayError):
    """`commit_unknown`: the connection broke while a change was committed, so it may have been made."""

    commit_unknown = False
    code = "videos_unavailable"
    title = "Videos can't be accepted now"
    hint = "The service needs free disk space in GATEWAY_SPOOL_FOLDER, and for jobs in GATEWAY_VIDEOS_FOLDER."


class InvalidCursor(GatewayError):
    code = "invalid_cursor"
    title = "The cursor can't be used"
    hint = "Take `next` of the page before, unchanged; without `after`, the list begins with the newest."


class IdempotencyKeyReused(GatewayError):
    code = "idempotency_key_reused"
    title = "The Idempotency-Key belongs to another request"
    hint = "Send a new key with each new request; only a retry of the same request has the same key."


class IdempotencyKeyInUse(GatewayError):
    code = "idempotency_key_in_use"
    title = "A request with this Idempotency-Key is in progress"
    hint = "Retry after the time in Retry-After, with the same key."


class SourceFailed(GatewayError):
    """A video that can't be fetched from its `source`."""


class SourceNotAllowed(SourceFailed):
    code = "source_not_allowed"
    title = "The gateway may not fetch from this source"
    hint = "Ask the operator of the gateway for its GATEWAY_VIDEO_SOURCES, or send the video itself."


class SourceRefused(SourceFailed):
    code = "source_refused"
    title = "The source refuses to give the video"
    hint = "Check the URL, its signature and its expiry, then submit the video again."


class SourceUnreachable(SourceFailed):
    code = "source_unreachable"
    title = "The source can't be reached"
    hint = "Check that the source answers, then submit the video again."


class SourceTooLarge(SourceFailed):
    code = "source_too_large"
    title = "The source has too many bytes"
    hint = "Submit a smaller file; GATEWAY_VIDEO_MAX_BYTES is the limit."


class SourceTimeout(SourceFailed):
    code = "source_timeout"
    title = "The source is too slow"
    hint = "Submit the video again, or send it itself; GATEWAY_VIDEO_TIMEOUT_S is the limit of a whole fetch."


class RateLimited(GatewayError):
    code = "rate_limited"
    title = "The API key's rate limit is reached"
    hint = "Retry after the time in Retry-After and send fewer requests per second; a batch counts as one request."


class Overloaded(GatewayError):
    code = "overloaded"
    title = "The queue is full"
    hint = "Retry after the time in Retry-After, with fewer requests in flight."


class DeadlineExceeded(GatewayError):
    """Deadline that passed in `stage`: receive, decode, queue, prepare, infer, finish or encode."""

    code = "deadline_exceeded"
    title = "The time for this request ran out"
    hint = "Allow more time with X-Request-Timeout (seconds), or send less at once."

    def __init__(self, stage: str) -> None:
        super().__init__(f"the time ran out in stage '{stage}'; the work was cancelled")
        self.stage = stage


class ShuttingDown(GatewayError):
    """The service shuts down before it has answered the request."""

    code = "shutting_down"
    title = "The service is shutting down"
    hint = "Retry the request; another replica, or this one after its restart, will answer it."


class BackendError(GatewayError):
    """The backend can't serve now."""


class TritonUnavailable(BackendError):
    code = "triton_unavailable"
    title = "Triton can't be reached"
    hint = "Check that Triton runs at the configured address; GET /readyz names the failing check."


class SeveralServers(BackendError):
    code = "several_servers"
    title = "Several Tritons answer at one address"
    hint = (
        "Tell the operator: each address must lead to a single Triton. "
        "List the Tritons' own addresses in GATEWAY_TRITON_URL instead of a balancer's."
    )


class ModelNotReady(BackendError):
    code = "model_not_ready"
    title = "The model is not ready"
    hint = "GET /v1/repository lists missing models; `fallback=true` allows the next smaller branch."


class WeightsMissing(BackendError):
    code = "weights_missing"
    title = "The model has no weights"
    hint = "Build them with `make models` in a checkout."


class InsufficientGpuMemory(BackendError):
    code = "insufficient_gpu_memory"
    title = "The GPU does not have enough memory for this branch"
    hint = (
        "Request a smaller branch, or allow one with `fallback=true`. "
        "If the answer has Retry-After, the branch is being reloaded."
    )


class InferenceFailed(BackendError):
    code = "inference_failed"
    title = "The model failed on this input"
    hint = "The detail is the backend's message; see its log for more."


def by_code(code: str) -> type[GatewayError]:
    """Return the error type of a problem code that routing returns."""
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
