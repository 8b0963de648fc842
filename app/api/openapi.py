"""What OpenAPI says of each route beyond its query parameters: bodies, forms of the answer, problems."""

from __future__ import annotations

from typing import Any

from app.api import schemas

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
    400: "invalid_image, invalid_parameter",
    404: "model_not_found",
    406: "not_acceptable",
    413: "payload_too_large, image_too_large",
    415: "unsupported_media_type",
    422: "validation_failed",
    429: "overloaded; Retry-After says when to come again",
    502: "inference_failed",
    503: "triton_unavailable, model_not_ready, weights_missing, insufficient_gpu_memory",
    504: "deadline_exceeded; `stage` says which stage used the time",
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "description": _PROBLEMS[status],
            "content": {"application/problem+json": {"schema": schemas.Problem.model_json_schema()}},
        }
        for status in statuses
    }


_FRAME_BODY = {
    "required": True,
    "content": {
        **{f"image/{kind}": _BINARY for kind in ("jpeg", "png", "webp", "bmp")},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
    },
}

DETECT: dict[str, Any] = {
    "responses": {
        200: {
            "description": "Boxes of the frame; of each frame under `results` when several were sent; as image/png the "
            "frame with its boxes drawn.",
            "model": schemas.DetectAnswer | schemas.DetectBatch,
            "content": {"image/png": _BINARY},
            "headers": {**_TIMING, **_PROVENANCE},
        },
        **_problems(*_PROBLEMS),
    },
    "openapi_extra": {
        "requestBody": _FRAME_BODY,
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
        ],
    },
}
BRANCHES: dict[str, Any] = {
    "responses": {200: {"description": "Every family", "model": schemas.Branches}, **_problems(400, 422)},
    "openapi_extra": {
        "x-codeSamples": [
            {"lang": "Shell", "source": "curl 'http://127.0.0.1:8080/v1/branches?width=810&height=1080'"}
        ]
    },
}
REPOSITORY: dict[str, Any] = {
    "responses": {200: {"description": "The checklist", "model": schemas.Repository}},
}
LIVEZ: dict[str, Any] = {"responses": {200: {"description": "Alive", "model": schemas.Alive}}}
READYZ: dict[str, Any] = {
    "responses": {
        200: {"description": "Ready", "model": schemas.Ready},
        503: {"description": "Not ready; `failing` names what fails", "model": schemas.Ready},
    },
}
METRICS: dict[str, Any] = {
    "responses": {200: {"description": "Metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}},
}
