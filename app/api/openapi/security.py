"""OpenAPI of API keys, and of what FastAPI leaves out: `null` in examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from app.api.openapi import examples
from app.api.openapi.operations import PROBLEM
from app.api.server.access import Rules, rule_of

_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key: `Authorization: Bearer <key>`. Only if the gateway has keys.",
    },
    "api_key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key in a header of its own.",
    },
}
_SAID = {
    "401": "unauthorized: the gateway has keys, and the request has no valid one",
    "403": "forbidden: the key lacks the route's scope",
    "429": "rate_limited: the key's own limit; Retry-After says when to retry",
}


def describe(app: FastAPI, rules: Rules, answers: Mapping[str, dict[str, Any]], *, needed: bool) -> None:
    """Let the description of `app` say which operations take a key, and whether they need one.

    `answers`: examples of the families' answers, by operation id.
    """
    make = app.openapi

    def openapi() -> dict[str, Any]:
        known = app.openapi_schema is not None
        document = make()
        if not known:
            _add(document, rules, needed)
            examples.add(document, answers)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation does


def _add(document: dict[str, Any], rules: Rules, needed: bool) -> None:
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    either: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
    for path, operations in document["paths"].items():
        template = path if path in rules else path.replace("{name}", "{name:path}")
        for method, operation in operations.items():
            rule = rule_of(rules, template, method.upper())
            if not rule:
                continue
            operation["security"] = either if needed else [{}, *either]
            operation["x-scopes"] = sorted(rule)
            for status, said in _SAID.items():
                _answer(operation["responses"], status, said)


def _answer(responses: dict[str, Any], status: str, said: str) -> None:
    if status in responses:
        responses[status]["description"] += f"; {said}"
    else:
        content = {"application/problem+json": PROBLEM}
        responses[status] = {"description": said, "content": content}
