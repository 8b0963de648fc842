"""The tables of docs/memory.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- begin: python -m benchmarks.memory --write -->", "<!-- end -->"


def markdown(document: Mapping[str, Any]) -> str:
    """The plans, and the measured rows if there are any."""
    lines = [*_plans(document["plans"])]
    if "branches" in document:
        lines += ["", *_measured(document)]
    return "\n".join(lines)


def replace(page: Path, text: str) -> None:
    """Put the tables between the marks of a page."""
    old = page.read_text(encoding="utf-8")
    new, count = re.subn(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{text}\n{END}", old, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{page} has no place for the tables: {BEGIN}")
    page.write_text(new, encoding="utf-8")


def _plans(plans: list[dict[str, Any]]) -> Iterator[str]:
    names = list(plans[0]["alone_bytes"])
    yield "| branch | alone, MiB | " + " | ".join(plan["card"].replace("GB", " GB") for plan in plans) + " |"
    yield "|---|---:|" + ":---:|" * len(plans)
    for name in names:
        cells = ["yes" if name in plan["fits"] else "no" for plan in plans]
        yield f"| `{name}` | {_mib(plans[0]['alone_bytes'][name])} | {' | '.join(cells)} |"
    needed = (f"{_mib(plan['needed_bytes'])} of {_mib(plan['usable_bytes'])}" for plan in plans)
    yield f"| **together, MiB** | | {' | '.join(needed)} |"


def _measured(document: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "| branch | weights, estimate | loaded, measured | ratio | activations, estimate | runs, measured | ratio "
        "| all, ratio |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for row in [*document["branches"], {**document["together"], "name": "all of them in one process"}]:
        weights, arena, loaded, taken = (
            row[key] for key in ("weights_bytes", "arena_bytes", "loaded_bytes", "taken_bytes")
        )
        runs = taken - loaded
        name = f"`{row['name']}`" if " " not in row["name"] else row["name"]
        cells = (
            _mib(weights), _mib(loaded), f"{loaded / weights:.2f}", _mib(arena), _mib(runs), f"{runs / arena:.2f}",
            f"{taken / (weights + arena):.2f}",
        )  # fmt: skip
        yield f"| {name} | {' | '.join(cells)} |"


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f}"
