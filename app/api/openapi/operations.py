"""OpenAPI of each route beyond its query parameters: bodies, forms of the answer, problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType, UnionType
from typing import Any

from fastapi import Response

from app.api.openapi import examples, schemas

BINARY = {"schema": {"type": "string", "format": "binary"}}
_PROVENANCE = {
    "X-Provenance": {"description": "The fields of the JSON answer.", "schema": {"type": "string"}}
}
_TIMING = {
    "Server-Timing": {
        "description": "decode, queue, prepare, infer, finish, encode in ms.",
        "schema": {"type": "string"},
    },
    "X-Request-Id": {"description": "The request's id, or a generated one.", "schema": {"type": "string"}},
}
_TIMEOUT = {
    "name": "X-Request-Timeout",
    "in": "header",
    "required": False,
    "description": "Time limit of the request in seconds; the server's own limit applies if it is shorter.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_ROLLOUT = {
    "name": "X-Rollout-Key",
    "in": "header",
    "required": False,
    "description": "Key that decides which version of a branch serves while a rollout gives a share of the requests a "
    "further version. One key always gets the same version. Without it, the session's id, the name of the API key or "
    "the request's id is taken.",
    "schema": {"type": "string"},
}
_PROBLEMS = {
    400: "invalid_image, invalid_video, invalid_parameter, prompt_too_long",
    404: "model_not_found, session_not_found, video_not_found",
    409: "session_conflict: parameters of a live session changed, or its frames came out of order",
    406: "not_acceptable",
    413: "payload_too_large, image_too_large, video_too_long",
    415: "unsupported_media_type",
    422: "validation_failed",
    429: "overloaded; Retry-After says when to retry",
    502: "inference_failed",
    503: "triton_unavailable, model_not_ready, weights_missing; several_servers: several Tritons answer at one "
    "address, so the model behind an answer is unknown; insufficient_gpu_memory: the branch ran out of memory and is "
    "reloaded in the background, Retry-After says when; sessions_unavailable, videos_unavailable; shutting_down: the "
    "service shut down before it answered the request",
    504: "deadline_exceeded; `stage` names the stage in which the time ran out",
}


PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}  # FastAPI adds it with the batches' models


def problems_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "description": _PROBLEMS[status],
            "content": {"application/problem+json": PROBLEM},
        }
        for status in statuses
    }


VIDEO_BODIES = {f"video/{kind}": BINARY for kind in ("mp4", "quicktime", "x-matroska", "webm", "x-msvideo")}
_NDJSON = {
    "application/x-ndjson": {
        "schema": {
            "type": "string",
            "description": "For a video: one line per sampled frame, then a line with `summary`. A frame's line is the "
            "JSON answer with `frame`, its own `branch` and `timings_ms`, or an `error` for a failed frame. With "
            "`provenance=change`, only the first line and each change have `branch` and the provenance. If an "
            "error ended the video early, a line before the summary has it.",
        },
        "example": examples.NDJSON,
    }
}
_BASE64 = {"type": "string", "description": "Base64, or a data URI."}


def picture_json(*names: str, **more: Any) -> dict[str, Any]:
    """JSON with pictures under these names; query parameters may stand beside them."""
    schema = {
        "type": "object",
        "required": [*names, *more],
        "properties": {**dict.fromkeys(names, _BASE64), **more},
    }
    return {"application/json": {"schema": schema}}


_FRAME_BODY: dict[str, Any] = {
    "required": True,
    "description": "The type is detected from the content. Query parameters may also be form fields or JSON members. "
    "The body may also be plain Base64 or a data URI. Content-Encoding gzip and deflate are decoded.",
    "content": {
        **{f"image/{kind}": BINARY for kind in ("jpeg", "png", "webp", "bmp")},
        **picture_json("image"),
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
    },
}

_FRAME_OR_VIDEO_BODY = {**_FRAME_BODY, "content": {**_FRAME_BODY["content"], **VIDEO_BODIES}}

FRAME_PROBLEMS = problems_of(*(status for status in _PROBLEMS if status != 409))
SESSION_PROBLEMS = problems_of(*_PROBLEMS)  # of a route whose frames may belong to a session


def headers_of_other_forms() -> dict[str, Any]:
    """Return the headers of an answer that has no fields for its provenance."""
    return {**_TIMING, **_PROVENANCE}


def _shell(source: str) -> dict[str, Any]:
    return {"lang": "Shell", "source": source}


def frame_operation(
    name: str,
    model: type[schemas.Schema] | UnionType,
    forms: Iterable[str],
    samples: Sequence[str],
    *,
    video: bool = False,
    description: str = "The answer with its provenance. In formats other than JSON, the header X-Provenance has it. "
    "For a batch of frames, `results` has the answers.",
    headers: Mapping[str, Any] = MappingProxyType({}),
    problems: Mapping[int | str, dict[str, Any]] = FRAME_PROBLEMS,
    body: Mapping[str, Any] | None = None,
    texts: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Describe a route that answers frames.

    Args:
        name: the operation id.
        model: of the JSON answer.
        forms: media types of its answers beside JSON that are bytes.
        samples: commands to try.
        video: it takes videos, too, and answers them as NDJSON.
        description: of the answer.
        headers: of the answer, beside those that every answer has.
        problems: by status.
        body: content of the request by media type; None: one frame in any form.
        texts: further forms of its answers, with schema and example.
    """
    others = {**dict.fromkeys(forms, BINARY), **texts}
    request = _FRAME_OR_VIDEO_BODY if video else _FRAME_BODY
    return {
        "operation_id": name,
        "responses": {
            200: {
                "description": description,
                "model": model,
                "content": {**others, **(_NDJSON if video else {})},
                "headers": {**_TIMING, **(_PROVENANCE if others else {}), **headers},
            },
            **problems,
        },
        "openapi_extra": {
            "requestBody": request if body is None else {"required": True, "content": body},
            "parameters": [_TIMEOUT, _ROLLOUT],
            "x-codeSamples": [_shell(source) for source in samples],
        },
    }


def form_body(*names: str, text: tuple[str, ...] = ()) -> dict[str, Any]:
    properties: dict[str, Any] = {name: {"type": "string", "format": "binary"} for name in names}
    properties |= {name: {"type": "array", "items": {"type": "string"}} for name in text}
    schema = {"type": "object", "required": [*names, *text], "properties": properties}
    return {"multipart/form-data": {"schema": schema}}


URL = "'http://127.0.0.1:8080/v1"
PHOTO = "--data-binary @docs/astronaut.jpg"
VIDEO = "--data-binary @docs/astronaut.mp4"

SESSION: dict[str, Any] = {
    "operation_id": "get_session",
    "responses": {
        200: {"description": "The session", "model": schemas.Session},
        **problems_of(400, 404, 409, 422, 503),
    },
    "openapi_extra": {"x-codeSamples": [_shell(f"curl {URL}/sessions/cam1'")]},
}
SESSION_DELETE: dict[str, Any] = {
    "operation_id": "delete_session",
    "responses": {204: {"description": "Session deleted"}, **problems_of(400, 404, 422, 503)},
}
BRANCHES: dict[str, Any] = {
    "operation_id": "branches",
    "responses": {
        200: {"description": "Every family", "model": schemas.Branches},
        **problems_of(400, 422),
    },
    "openapi_extra": {
        "x-codeSamples": [
            {"lang": "Shell", "source": "curl 'http://127.0.0.1:8080/v1/branches?width=810&height=1080'"}
        ]
    },
}
REPOSITORY: dict[str, Any] = {
    "operation_id": "repository",
    "responses": {200: {"description": "The checklist", "model": schemas.Repository}},
}
LIVEZ: dict[str, Any] = {
    "operation_id": "livez",
    "responses": {200: {"description": "Alive", "model": schemas.Alive}},
}
READYZ: dict[str, Any] = {
    "operation_id": "readyz",
    "responses": {
        200: {"description": "Ready", "model": schemas.Ready},
        503: {"description": "Not ready; `failing` names what fails", "model": schemas.Ready},
    },
}
METRICS: dict[str, Any] = {
    "operation_id": "metrics",
    "response_class": Response,  # FastAPI would list JSON as well
    "responses": {
        200: {
            "description": "Metrics",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": examples.METRICS}},
        }
    },
}
