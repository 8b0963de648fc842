"""Errors in the form of OpenAI's API, on the one route that its clients call; all others answer problems."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

PATH = "/v1/embeddings"
_FIELDS = ("input", "model", "encoding_format", "dimensions", "user")
# Where clients look for OpenAI's own words; any other code is the gateway's.
_CODES = MappingProxyType({"unauthorized": "invalid_api_key", "rate_limited": "rate_limit_exceeded"})
_SERVER_ERROR = 500


def openai_error(problem: Mapping[str, Any]) -> dict[str, Any]:
    """Return a problem in OpenAI's form: message, type, the field at fault, and code."""
    status, code = problem["status"], str(problem["code"])
    detail = str(problem.get("detail") or problem["title"])
    field = detail.partition(":")[0]
    hint = problem.get("what_to_do")
    return {
        "error": {
            "message": f"{detail.rstrip('.')}. {hint}" if hint else detail,
            "type": _kind(status),
            "param": field if field in _FIELDS else None,
            "code": _CODES.get(code, code),
        }
    }


def _kind(status: int) -> str:
    if status >= _SERVER_ERROR:
        return "server_error"
    return {403: "permission_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
