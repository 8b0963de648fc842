"""Ways to show a run: a live view in a terminal, lines elsewhere, and JSON for programs."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from app.bulk.driver import Totals
from app.bulk.outcomes import Outcome
from app.commands.bulk.progress import Progress, line


class View(Protocol):
    """Shows a run while it goes on."""

    def shown(self) -> AbstractContextManager[object]:
        """Context manager of the run."""

    def add(self, outcome: Outcome, totals: Totals) -> None:
        """Take a row and the counts so far."""


class Lines:
    """One line per video."""

    def shown(self) -> AbstractContextManager[object]:
        return nullcontext()

    def add(self, outcome: Outcome, totals: Totals) -> None:
        of = "" if totals.expected is None else f"/{totals.expected}"
        print(f"[{totals.videos}{of}] {line(outcome)}", flush=True)


class JsonLines:
    """One JSON object per video."""

    def shown(self) -> AbstractContextManager[object]:
        return nullcontext()

    def add(self, outcome: Outcome, _: Totals) -> None:
        print(outcome.to_json(), flush=True)


def create_view(progress: Progress, *, as_json: bool) -> View:
    """Return the view that suits standard output."""
    if as_json:
        return JsonLines()
    if not sys.stdout.isatty():
        return Lines()
    from app.commands.bulk.live import LiveView  # noqa: PLC0415  # an extra: bulk

    return LiveView(progress)
