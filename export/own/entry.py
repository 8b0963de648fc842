"""The catalogue entry of a model of one's own: a TOML file, and a file of class names beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from export.own.request import Variant

MARK = "# Written by `gateway models add`; `gateway models remove` takes it away."


def text(name: str, variants: Sequence[Variant], labels: str | None) -> str:
    """The TOML of variants called `name`; `labels` is the file of their class names."""
    return "\n".join([MARK, *(line for variant in variants for line in _lines(name, variant, labels)), ""])


def _lines(name: str, variant: Variant, labels: str | None) -> Iterator[str]:
    yield "[[variant]]"
    yield from _keys({"family": variant.family, "name": name})
    if variant.labels and labels is not None:
        yield from _keys({"labels": labels})
    yield from _keys(variant.keys)
    for branch in variant.branches:
        yield "[[variant.branch]]"
        yield from _keys(branch)


def _keys(table: Mapping[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        yield f"{key} = {json.dumps(value, ensure_ascii=False)}"  # a string of JSON is one of TOML


def is_ours(path: Path) -> bool:
    """Tell if `gateway models add` has written this file."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().rstrip("\n") == MARK
    except (OSError, ValueError):
        return False
