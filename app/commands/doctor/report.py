"""Rows of `gateway doctor`: what was looked at, how it is, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from app.commands.predict.printing import padded, plain, width_of

State = Literal["ok", "note", "warning", "failed"]
_HEAD = ("what", "name", "state", "found")


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was looked at.

    `failed`: what the settings ask for doesn't work. `warning`: it works, and will not for long or not well.
    `note`: it isn't there, and nobody asked for it. `todo` is empty where there is nothing to do.
    """

    what: str
    name: str
    state: State
    found: str
    todo: str = ""


def document(rows: Sequence[Row]) -> dict[str, Any]:
    """For `--json`."""
    return {
        "healthy": healthy(rows),
        "summary": {
            state: sum(row.state == state for row in rows) for state in ("ok", "note", "warning", "failed")
        },
        "checks": [asdict(row) for row in rows],
    }


def healthy(rows: Sequence[Row]) -> bool:
    """Nothing failed."""
    return all(row.state != "failed" for row in rows)


def table(rows: Sequence[Row]) -> str:
    """Aligned rows, each with what to do below it, and the verdict."""
    cells = [_HEAD, *((row.what, row.name, row.state, row.found) for row in rows)]
    clean = [[plain(cell) for cell in row] for row in cells]
    widths = [max(width_of(row[column]) for row in clean) for column in range(len(_HEAD) - 1)]
    lines = []
    for row, asked in zip(clean, (None, *rows), strict=True):
        lines.append("  ".join([*map(padded, row, widths), row[-1]]).rstrip())
        if asked is not None and asked.todo:
            lines.append(f"{' ' * (sum(widths) + 6)}-> {plain(asked.todo)}")
    counts = document(rows)["summary"]
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return "\n".join(
        [*lines, "", f"{said}: {'well' if healthy(rows) else 'something the settings ask for fails'}"]
    )
