"""OpenAPI of `/v1/videos`."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from app.api.openapi import examples
from app.api.openapi import video_schemas as schemas
from app.api.openapi.operations import PROBLEM, problems_of

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_HERE = "http://127.0.0.1:8080/v1/videos"


def _shell(*sources: str) -> list[dict[str, str]]:
    return [{"lang": "Shell", "source": source} for source in sources]


def _route(
    name: str, answer: dict[int | str, dict[str, Any]], problems: tuple[int, ...], *samples: str
) -> dict[str, Any]:
    return {
        "operation_id": name,
        "responses": {**answer, **problems_of(*problems)},
        "openapi_extra": {"x-codeSamples": _shell(*samples)},
    }


_CALLBACK_URL = {
    "type": "string",
    "description": "URL that receives a signed POST when the job is over.",
}
_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "profile": {"type": "string", "description": "Name of a profile, or a profile in YAML."},
        "name": {"type": "string"},
        "callback_url": _CALLBACK_URL,
    },
}
_SOURCE = {
    "type": "object",
    "required": ["source"],
    "additionalProperties": False,
    "properties": {
        "source": {
            "type": "string",
            "maxLength": 2048,
            "description": "URL that the service fetches the video from: https://, http:// or s3://bucket/key. Its "
            "host or bucket must be in GATEWAY_VIDEO_SOURCES.",
        },
        "profile": {
            "oneOf": [{"type": "string"}, {"type": "object"}],
            "description": "Name of a profile, a profile in YAML, or a profile as an object.",
        },
        "name": {"type": "string", "maxLength": 200},
        "callback_url": _CALLBACK_URL,
    },
}
SUBMIT = _route(
    "submit_video",
    {
        202: {
            "description": "Accepted; `Location` is the URL of the job",
            "model": schemas.Video,
            "headers": {
                "Idempotency-Replayed": {
                    "description": "`true`: an earlier request with this Idempotency-Key has made the job.",
                    "schema": {"type": "string"},
                }
            },
        }
    },
    (400, 404, 409, 413, 415, 422, 429, 503, 504),
    f"curl --data-binary @docs/astronaut.mp4 '{_HERE}?profile=detect_embedded'",
    f"curl -F file=@docs/astronaut.mp4 -F profile=detect_embedded -F name=astronaut.mp4 '{_HERE}'",
    f"curl --data-binary @docs/astronaut.mp4 '{_HERE}?profile=detect_embedded&callback_url=https://hooks.example.com/videos'",
    f"curl -H 'Idempotency-Key: \"holiday-1\"' --data-binary @docs/astronaut.mp4 '{_HERE}?profile=detect_embedded'",
    """curl -H 'Content-Type: application/json' -d '{"source": "https://media.example.com/astronaut.mp4", """
    f""""profile": "detect_embedded"}}' {_HERE}""",
)
SUBMIT["responses"][422] = SUBMIT["responses"][422] | {
    "description": "validation_failed; url_refused: the service may not call the host of callback_url; "
    "source_not_allowed: the service may not fetch from source; idempotency_key_reused: the job of this "
    "Idempotency-Key was asked for in another way"
}
SUBMIT["responses"][409] = SUBMIT["responses"][409] | {
    "description": "idempotency_key_in_use: another request with this Idempotency-Key is being received; Retry-After "
    "says when to retry"
}
SUBMIT["openapi_extra"]["parameters"] = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "A string in double quotes that names this submission, such as a UUID. A retry with the same "
        "key returns the job of the first request instead of making another.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 512},
        "example": '"f1d0c2b4-6d0f-4f0e-9d55-0c6b1a1f8a5e"',
    }
]
SUBMIT["openapi_extra"]["requestBody"] = {
    "required": True,
    "content": {
        **{f"video/{kind}": _BINARY for kind in ("mp4", "quicktime", "x-matroska", "webm", "x-msvideo")},
        "multipart/form-data": {"schema": _FORM},
        "application/json": {
            "schema": _SOURCE,
            "example": {"source": "https://media.example.com/astronaut.mp4", "profile": "detect_embedded"},
        },
    },
}
LIST = _route(
    "list_videos",
    {
        200: {
            "description": "A page of the jobs, newest first",
            "model": schemas.Videos,
            "headers": {
                "Link": {
                    "description": 'The URL of the next page, with `rel="next"`, where there is one (RFC 8288).',
                    "schema": {"type": "string"},
                }
            },
        }
    },
    (400, 422, 503),
    f"curl '{_HERE}?limit=20&state=queued,running'",
)
LIST["responses"][422] = LIST["responses"][422] | {
    "description": "validation_failed; invalid_cursor: `after` is no cursor of this list"
}
GET = _route(
    "get_video",
    {200: {"description": "The job", "model": schemas.Video}},
    (404, 422, 503),
    f"curl '{_HERE}/ID'",
)
EVENTS = _route(
    "video_events",
    {
        200: {
            "description": "Events",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": examples.EVENTS}},
        }
    },
    (404, 422, 503),
    f"curl -N '{_HERE}/ID/events'",
)
EVENTS["response_class"] = Response  # FastAPI would list JSON as well
ARTIFACT = _route(
    "video_artifact",
    {
        200: {
            "description": "The file",
            "content": {
                "application/zip": _BINARY,
                "application/vnd.apache.parquet": _BINARY,
                "video/mp4": _BINARY,
                "application/json": {"schema": {"type": "object"}},
            },
        },
        206: {"description": "The bytes of `Range`"},
        304: {"description": "Unchanged: `If-None-Match` has the `ETag` of the file"},
        416: {
            "description": "range_not_satisfiable; `Content-Range` has the length of the file",
            "content": {"application/problem+json": PROBLEM},
        },
    },
    (404, 422, 503),
    f"curl -O '{_HERE}/ID/artifacts/core_object_detections/detections.npz'",
)
DELETE = _route(
    "delete_video", {204: {"description": "Job deleted"}}, (404, 422, 503), f"curl -X DELETE '{_HERE}/ID'"
)
