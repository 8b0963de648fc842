"""The OpenAPI document beside the committed one: a change of the public contract is made on purpose.

After a wanted change:  .venv/bin/python tests/behaviour/http/test_openapi_snapshot.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.main import create_app
from app.settings import Settings

SNAPSHOT = Path(__file__).with_name("openapi.json")
# Words for people, and the release: they may change freely.
FREE = frozenset({"description", "summary", "version", "x-codeSamples"})


def contract(value: Any, *, names: bool = False) -> Any:
    """`value` without what may change freely; `names`: the keys of a mapping are names, no keywords of OpenAPI."""
    if isinstance(value, list):
        return [contract(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: contract(item, names=key in ("properties", "schemas") and not names)
        for key, item in sorted(value.items())
        if names or key not in FREE
    }


def document() -> Any:
    """Return the service's current OpenAPI document."""
    return contract(json.loads(json.dumps(create_app(Settings()).openapi())))


def test_the_contract_is_the_committed_one() -> None:
    """Paths, parameters, schemas, media types, statuses and examples are as they were."""
    now, committed = document(), json.loads(SNAPSHOT.read_text("utf-8"))
    assert now["paths"].keys() == committed["paths"].keys()
    assert now["components"]["schemas"].keys() == committed["components"]["schemas"].keys()
    for path, operations in committed["paths"].items():
        assert now["paths"][path] == operations, path
    for name, schema in committed["components"]["schemas"].items():
        assert now["components"]["schemas"][name] == schema, name
    assert now == committed


def test_a_change_is_seen() -> None:
    """A parameter, a property and a description: the last one alone is free."""
    before = {"properties": {"description": {"type": "string", "description": "Words."}}, "required": ["a"]}
    assert contract(before)["properties"] == {"description": {"type": "string"}}
    assert contract(before) != contract({**before, "required": []})
    assert contract(before) != contract({**before, "properties": {}})


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(document(), indent=1, ensure_ascii=False) + "\n", "utf-8")
