"""The live view of a run in a terminal."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.bulk.driver import Totals
from app.bulk.outcomes import STATES, Outcome, State
from app.commands.bulk.progress import Progress, reason

_COLOURS: dict[State, str] = {
    "done": "green", "partial": "yellow", "skipped": "cyan", "failed": "red", "poison": "magenta",
}  # fmt: skip
_SHOWN = 5
_PER_S = 4


class LiveView:
    """Counts, speed, time left, and the slowest and failing videos; drawn again several times per second."""

    def __init__(self, progress: Progress, console: Console | None = None) -> None:
        self._progress = progress
        self._console = console

    def shown(self) -> AbstractContextManager[object]:
        return Live(
            get_renderable=self.drawn, console=self._console, refresh_per_second=_PER_S, transient=True
        )

    def add(self, outcome: Outcome, totals: Totals) -> None:
        """Draw nothing: the view draws itself."""

    def drawn(self) -> RenderableType:
        """Return what is to be seen now."""
        progress = self._progress
        parts: list[RenderableType] = [self._counts(), self._bar(), self._speed()]
        if progress.slowest:
            parts.append(_videos("slowest", [(f"{s:.1f} s", name) for s, name in progress.slowest[:_SHOWN]]))
        if progress.failing:
            latest = list(progress.failing)[-_SHOWN:]
            parts.append(_videos("failing", [(row.state, f"{row.name}: {reason(row)}") for row in latest]))
        return Group(*parts)

    def _counts(self) -> Text:
        totals = self._progress.totals
        text = Text()
        for state in STATES:
            text.append(
                f"{totals.states[state]} {state}  ", _COLOURS[state] if totals.states[state] else "dim"
            )
        left = self._progress.left
        return text.append("counting …" if left is None else f"{left} left")

    def _bar(self) -> RenderableType:
        totals = self._progress.totals
        bar = ProgressBar(total=totals.expected, completed=totals.videos, pulse=totals.expected is None)
        return Padding(bar, 0)  # a bar alone ends with no new line

    def _speed(self) -> Text:
        progress = self._progress
        left = "?" if progress.left_s is None else _clock(progress.left_s)
        words = f"{progress.frames_per_s:.1f} frames/s, {_clock(progress.seconds)} so far, about {left} left"
        return Text(words)


def _videos(title: str, rows: list[tuple[str, str]]) -> Table:
    """Return a small table. Names are text: what looks like markup in them stays as it is."""
    table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    for first, second in rows:
        table.add_row(Text(first), Text(second, overflow="ellipsis", no_wrap=True))
    return table


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
