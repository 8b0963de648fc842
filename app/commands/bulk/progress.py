"""State of a run for people: counts, speed, the slowest and the failing videos."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator

from app.bulk.driver import Totals
from app.bulk.outcomes import STATES, Outcome


class Progress:
    """Takes the rows of a run. Keeps only the slowest and the latest failing videos, `most` of each."""

    def __init__(self, most: int = 10, clock: Callable[[], float] = time.monotonic) -> None:
        self.totals = Totals()
        self.failing: deque[Outcome] = deque(maxlen=most)
        self._most = most
        self._slowest: list[tuple[float, str]] = []
        self._clock = clock
        self._began = clock()

    def add(self, outcome: Outcome, totals: Totals) -> None:
        """Take a row and the counts so far."""
        self.totals = totals
        if outcome.worked:
            push = heapq.heappush if len(self._slowest) < self._most else heapq.heappushpop
            push(self._slowest, (outcome.seconds, outcome.name))
        if outcome.state in ("failed", "poison", "partial"):
            self.failing.append(outcome)

    @property
    def slowest(self) -> list[tuple[float, str]]:
        """Seconds and names, the slowest first."""
        return sorted(self._slowest, reverse=True)

    @property
    def seconds(self) -> float:
        return self._clock() - self._began

    @property
    def frames_per_s(self) -> float:
        return self.totals.frames / max(self.seconds, 1e-3)

    @property
    def left(self) -> int | None:
        """Videos that have no row yet; None until they are counted."""
        expected = self.totals.expected
        return None if expected is None else max(0, expected - self.totals.videos)

    @property
    def left_s(self) -> float | None:
        """About how many seconds they take; None as long as nothing is known. Skipped videos say nothing of that."""
        worked = self.totals.videos - self.totals.states["skipped"]
        return None if self.left is None or not worked else self.left * self.seconds / worked


def line(outcome: Outcome) -> str:
    """Return the row of a video in words."""
    there = outcome.worked or outcome.state == "skipped"
    work = f": {outcome.frames} frames, {outcome.seconds:.1f} s" if there else ""
    fault = reason(outcome)
    return f"{outcome.state:8} {outcome.name}{work}" + (f": {fault}" if fault else "")


def reason(outcome: Outcome) -> str:
    """Return code and reason of a fault; empty where there is none."""
    return ": ".join(part for part in (outcome.code, outcome.reason) if part)


def summary(progress: Progress, output: str) -> Iterator[str]:
    """Yield the lines that end a run."""
    totals = progress.totals
    states = ", ".join(f"{totals.states[state]} {state}" for state in STATES if totals.states[state])
    rate = f"{totals.frames} frames in {progress.seconds:.1f} s, {progress.frames_per_s:.1f} frames/s"
    yield f"{totals.videos} videos: {states or 'none'}; {rate} -> {output}"
    yield from (f"  {line(outcome)}" for outcome in progress.failing)
    hidden = totals.failed + totals.states["partial"] - len(progress.failing)
    if hidden > 0:
        yield f"  and {hidden} more: gateway bulk status {output}"
    if totals.interrupted:
        yield "interrupted; what is done is kept: run the command again to go on"
