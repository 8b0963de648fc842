"""OpenAPI of each route beyond its query parameters: bodies, forms of the answer, problems."""

from __future__ import annotations

from types import UnionType
from typing import Any

from fastapi import Response

from app.api.openapi import examples, schemas

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PROVENANCE = {
    "X-Provenance": {"description": "The fields of the JSON answer.", "schema": {"type": "string"}}
}
_TIMING = {
    "Server-Timing": {
        "description": "decode, queue, prepare, infer, finish, encode in ms.",
        "schema": {"type": "string"},
    },
    "X-Request-Id": {"description": "Echoed, or made.", "schema": {"type": "string"}},
}
_TIMEOUT = {
    "name": "X-Request-Timeout",
    "in": "header",
    "required": False,
    "description": "Seconds that the answer may take; the server's limit if that is less.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_PROBLEMS = {
    400: "invalid_image, invalid_video, invalid_parameter, prompt_too_long",
    404: "model_not_found, session_not_found, video_not_found",
    409: "session_conflict: parameters of a live session changed, or its frames came out of order",
    406: "not_acceptable",
    413: "payload_too_large, image_too_large, video_too_long",
    415: "unsupported_media_type",
    422: "validation_failed",
    429: "overloaded; Retry-After says when to come again",
    502: "inference_failed",
    503: "triton_unavailable, model_not_ready, weights_missing; several_servers: several Tritons answer at one "
    "address, so nothing could be said about the model behind an answer; insufficient_gpu_memory: the branch ran out "
    "of memory and is loaded again in the background, Retry-After says when that is tried; sessions_unavailable, "
    "videos_unavailable; shutting_down: the service ended before the request was answered",
    504: "deadline_exceeded; `stage` says which stage used the time",
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


_VIDEO_BODIES = {f"video/{kind}": _BINARY for kind in ("mp4", "quicktime", "x-matroska", "webm", "x-msvideo")}
_NDJSON = {
    "application/x-ndjson": {
        "schema": {
            "type": "string",
            "description": "Of a video: a line a sampled frame (the JSON answer with `frame`, its own `branch` and "
            "`timings_ms`; an `error` in place of what failed), the error that ended the video early, if one did, and "
            "`summary`.",
        },
        "example": examples.NDJSON,
    }
}
_BASE64 = {"type": "string", "description": "Base64, or a data URI."}


def _picture_json(*names: str, **more: Any) -> dict[str, Any]:
    """JSON with pictures under these names; query parameters may stand beside them."""
    schema = {
        "type": "object",
        "required": [*names, *more],
        "properties": {**dict.fromkeys(names, _BASE64), **more},
    }
    return {"application/json": {"schema": schema}}


_FRAME_BODY: dict[str, Any] = {
    "required": True,
    "description": "What it is, its bytes decide. Query parameters may also be fields of a form or members of JSON. "
    "Base64 or a data URI may also be sent as it is. Content-Encoding gzip and deflate are decoded.",
    "content": {
        **{f"image/{kind}": _BINARY for kind in ("jpeg", "png", "webp", "bmp")},
        **_picture_json("image"),
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
    },
}

_FRAME_OR_VIDEO_BODY = {**_FRAME_BODY, "content": {**_FRAME_BODY["content"], **_VIDEO_BODIES}}

DETECT: dict[str, Any] = {
    "operation_id": "detect",
    "responses": {
        200: {
            "description": "Boxes of the frame; of each frame under `results` when several were sent; as image/png or "
            "image/jpeg the frame with its boxes drawn.",
            "model": schemas.DetectAnswer | schemas.DetectBatch,
            "content": {
                "image/png": _BINARY,
                "image/jpeg": _BINARY,
                **_NDJSON,
            },
            "headers": {**_TIMING, **_PROVENANCE},
        },
        **problems_of(*_PROBLEMS),
    },
    "openapi_extra": {
        "requestBody": _FRAME_OR_VIDEO_BODY,
        "parameters": [_TIMEOUT],
        "x-codeSamples": [
            {
                "lang": "Shell",
                "source": "curl --data-binary @docs/astronaut.jpg 'http://127.0.0.1:8080/v1/detect'",
            },
            {
                "lang": "Shell",
                "source": "curl -H 'Accept: image/png' --data-binary @docs/astronaut.jpg -o boxes.png "
                "'http://127.0.0.1:8080/v1/detect?branch=640&conf=0.4'",
            },
            {
                "lang": "Shell",
                "source": "curl -F file=@docs/astronaut.jpg -F file=@docs/astronaut.jpg "
                "'http://127.0.0.1:8080/v1/detect'",
            },
            {
                "lang": "Shell",
                "source": "curl --data-binary @docs/astronaut.jpg 'http://127.0.0.1:8080/v1/detect?session=cam1'",
            },
            {
                "lang": "Shell",
                "source": "curl -F file=@docs/astronaut.jpg -F file=@docs/astronaut.jpg "
                "'http://127.0.0.1:8080/v1/detect?session=cam2&timestamp=12.44,12.48'",
            },
        ],
    },
}
_FRAME_PROBLEMS = problems_of(*(status for status in _PROBLEMS if status != 409))


def _shell(source: str) -> dict[str, Any]:
    return {"lang": "Shell", "source": source}


def _frame_route(
    name: str,
    model: type[schemas.Schema] | UnionType,
    forms: tuple[str, ...],
    *samples: str,
    video: bool = False,
) -> dict[str, Any]:
    """A route that takes one frame, or a video; `forms` are its answers beside JSON."""
    return {
        "operation_id": name,
        "responses": {
            200: {
                "description": "The answer with its provenance; in other forms than JSON that stands in X-Provenance. "
                "Where a batch of frames can be sent, its answers stand under `results`.",
                "model": model,
                "content": {
                    **dict.fromkeys(forms, _BINARY),
                    **(_NDJSON if video else {}),
                },
                "headers": {**_TIMING, **(_PROVENANCE if forms else {})},
            },
            **_FRAME_PROBLEMS,
        },
        "openapi_extra": {
            "requestBody": _FRAME_OR_VIDEO_BODY if video else _FRAME_BODY,
            "parameters": [_TIMEOUT],
            "x-codeSamples": [_shell(source) for source in samples],
        },
    }


def _with_body(route: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    return {
        **route,
        "openapi_extra": {**route["openapi_extra"], "requestBody": {"required": True, "content": body}},
    }


def _form(*names: str, text: tuple[str, ...] = ()) -> dict[str, Any]:
    properties: dict[str, Any] = {name: {"type": "string", "format": "binary"} for name in names}
    properties |= {name: {"type": "array", "items": {"type": "string"}} for name in text}
    schema = {"type": "object", "required": [*names, *text], "properties": properties}
    return {"multipart/form-data": {"schema": schema}}


_NPY, _FLO, _PNG, _JPEG = "application/x-npy", "application/x-flo", "image/png", "image/jpeg"
_HERE = "'http://127.0.0.1:8080/v1"
_PHOTO = "--data-binary @docs/astronaut.jpg"
_VIDEO = "--data-binary @docs/astronaut.mp4"

DEPTH = _frame_route(
    "depth",
    schemas.DepthAnswer | schemas.DepthBatch,
    (_NPY, _PNG, _JPEG),
    f"curl {_PHOTO} {_HERE}/depth'",
    f"curl -H 'Accept: image/png' {_PHOTO} -o depth.png {_HERE}/depth?render=color'",
    f"curl {_VIDEO} {_HERE}/depth?fps=2'",
    video=True,
)
DEPTH["responses"][200]["headers"] |= {
    f"X-Depth-{end}": {
        "description": f"Of 16-bit image/png: the depth of level {level}.",
        "schema": {"type": "string"},
    }
    for end, level in (("Min", 0), ("Max", 65535))
}
FLOW = _with_body(
    _frame_route(
        "flow",
        schemas.FlowAnswer,
        (_NPY, _FLO, _PNG, _JPEG),
        f"curl -F frame0=@docs/astronaut.jpg -F frame1=@docs/astronaut.jpg {_HERE}/flow'",
        f"curl -F frame0=@docs/astronaut.jpg -F frame1=@docs/astronaut.jpg {_HERE}/flow?variant=large'",
        f"curl {_VIDEO} {_HERE}/flow?fps=5'",
        video=True,
    ),
    {**_form("frame0", "frame1"), **_picture_json("frame0", "frame1"), **_VIDEO_BODIES},
)
CLIP_TEXT = _with_body(
    _frame_route(
        "clip_text",
        schemas.TextAnswer,
        (_NPY,),
        f"""curl -H 'Content-Type: application/json' -d '{{"prompts": ["a photo of a cat"]}}' {_HERE}/clip/text'""",
    ),
    {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["prompts"],
                "additionalProperties": False,
                "properties": {"prompts": {"type": "array", "minItems": 1, "items": {"type": "string"}}},
            },
            "example": {"prompts": ["a photo of a cat", "a photo of a dog"]},
        }
    },
)
CLIP_IMAGE = _frame_route(
    "clip_image",
    schemas.EmbeddingAnswer | schemas.EmbeddingBatch,
    (_NPY,),
    f"curl {_PHOTO} {_HERE}/clip/image'",
    f"curl -F file=@docs/astronaut.jpg -F file=@docs/astronaut.jpg {_HERE}/clip/image'",
    f"curl {_VIDEO} {_HERE}/clip/image?every=25&encoding=base64'",
    video=True,
)
SIMILARITY = _with_body(
    _frame_route(
        "similarity",
        schemas.SimilarityAnswer,
        (),
        f"curl -F file=@docs/astronaut.jpg -F prompt='an astronaut' -F prompt='a cat' {_HERE}/clip/similarity'",
    ),
    {
        **_form("file", text=("prompt",)),
        **_picture_json("image", prompts={"type": "array", "items": {"type": "string"}}),
    },
)
PLACES = _frame_route(
    "places",
    schemas.PlacesAnswer | schemas.PlacesBatch,
    (),
    f"curl {_PHOTO} {_HERE}/places?k=3'",
    f"curl {_VIDEO} {_HERE}/places?keyframes=true'",
    video=True,
)


SESSION: dict[str, Any] = {
    "operation_id": "get_session",
    "responses": {
        200: {"description": "The session", "model": schemas.Session},
        **problems_of(400, 404, 409, 422, 503),
    },
    "openapi_extra": {"x-codeSamples": [_shell(f"curl {_HERE}/sessions/cam1'")]},
}
SESSION_DELETE: dict[str, Any] = {
    "operation_id": "delete_session",
    "responses": {204: {"description": "It is gone"}, **problems_of(400, 404, 422, 503)},
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
