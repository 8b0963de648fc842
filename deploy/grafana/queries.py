"""The dashboards as Grafana would read them, and their queries with the variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
GPU_ONLY = "(GPU hosts)"  # ends the title of panels whose series exist on GPU hosts alone
_VARIABLE = re.compile(r"\$\{?([a-z]\w*|__rate_interval)\}?")


class PanelQuery(NamedTuple):
    """One query of one panel."""

    board: str
    panel: str
    letter: str
    expr: str


def boards() -> dict[str, dict[str, Any]]:
    """Every dashboard, by its file's name."""
    return {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("dashboards/*.json"))
    }


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the panels that show data: all but the headings."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> Iterator[PanelQuery]:
    """All of them."""
    for name, board in boards().items():
        for panel in panels(board):
            for target in panel["targets"]:
                yield PanelQuery(name, panel["title"], target["refId"], target["expr"])


def variables(text: str) -> set[str]:
    """Names of the variables in an expression; `$1` and `${1}` are groups of label_replace."""
    return set(_VARIABLE.findall(text))


def substituted(expr: str, interval: str) -> str:
    """Everything chosen, as the dashboards open; `interval` stands for $__rate_interval."""
    return _VARIABLE.sub(lambda found: interval if found[1] == "__rate_interval" else ".*", expr)
