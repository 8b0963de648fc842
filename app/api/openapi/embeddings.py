"""OpenAPI of `POST /v1/embeddings`."""

from __future__ import annotations

from typing import Any

from app.api.openapi.embedding_schemas import EmbeddingsAnswer
from app.api.openapi.operations import URL, headers_of_other_forms

_ERROR = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["message", "type", "param", "code"],
                    "properties": {
                        "message": {"type": "string"},
                        "type": {"type": "string"},
                        "param": {"type": ["string", "null"]},
                        "code": {"type": ["string", "null"]},
                    },
                }
            },
        },
        "example": {
            "error": {
                "message": "input: a text must not be empty. See /docs for the parameters.",
                "type": "invalid_request_error",
                "param": "input",
                "code": "invalid_parameter",
            }
        },
    }
}
_ERRORS = {
    400: "invalid_parameter, invalid_image, prompt_too_long",
    401: "invalid_api_key: the gateway has keys, and the request has no valid one",
    403: "forbidden: the key lacks the route's scope",
    404: "model_not_found",
    406: "not_acceptable",
    413: "payload_too_large, image_too_large",
    415: "unsupported_media_type",
    422: "validation_failed",
    429: "overloaded, rate_limit_exceeded; Retry-After says when to retry",
    502: "inference_failed",
    503: "triton_unavailable, model_not_ready, weights_missing, and the other codes that the other routes answer",
    504: "deadline_exceeded",
}
_TEXT_OR_PICTURE = {
    "type": "string",
    "minLength": 1,
    "description": "A text, or a picture as a data URI in base64.",
}
_BODY = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["input", "model"],
            "additionalProperties": False,
            "properties": {
                "input": {
                    "oneOf": [_TEXT_OR_PICTURE, {"type": "array", "minItems": 1, "items": _TEXT_OR_PICTURE}]
                },
                "model": {
                    "type": "string",
                    "description": "`clip`, or a variant or branch of clip_text or clip_image (GET /v1/branches).",
                },
                "encoding_format": {"type": "string", "enum": ["float", "base64"], "default": "float"},
                "dimensions": {"type": "integer", "description": "Must be the model's own length."},
                "user": {"type": "string", "description": "Ignored."},
            },
        },
        "example": {"input": ["a photo of a cat", "a photo of a dog"], "model": "clip"},
    }
}
OPERATION: dict[str, Any] = {
    "operation_id": "embeddings",
    "responses": {
        200: {
            "description": "The embeddings. The header X-Provenance says which models made them.",
            "model": EmbeddingsAnswer,
            "headers": headers_of_other_forms(),
        },
        **{status: {"description": said, "content": _ERROR} for status, said in _ERRORS.items()},
    },
    "openapi_extra": {
        "requestBody": {"required": True, "content": _BODY},
        "x-codeSamples": [
            {
                "lang": "Shell",
                "source": "curl -H 'Content-Type: application/json' "
                f"""-d '{{"model": "clip", "input": ["a photo of a cat"]}}' {URL}/embeddings'""",
            }
        ],
    },
}
