"""Entries of a run on other machines: which waits, which runs, which is tried again. Pure: no clock, no Ray.

An entry runs at least once. It runs again if its worker dies, and once more beside itself if it takes much longer than
the others and nothing else is left to do. One outcome of each entry counts.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from app.bulk.entries import Entry
from app.bulk.outcomes import Outcome

_KNOWN = 200  # the latest durations, of which the median is taken


@dataclass(frozen=True, slots=True)
class Stragglers:
    """Rule for stragglers: entries that run for more than `factor` times the median, and at least `at_least_s` seconds.

    The median is that of the entries that were finished; there must be `seen` of them.
    """

    factor: float = 3.0
    at_least_s: float = 30.0
    seen: int = 3


@dataclass(slots=True, eq=False)
class Task:
    """An entry in work; `begun` has one time per copy that runs."""

    entry: Entry
    begun: list[float] = field(default_factory=list)
    settled: bool = False


class Work:
    """The tasks of one run. Memory grows with what runs at once, not with the entries."""

    def __init__(self, entries: Iterable[Entry], stragglers: Stragglers) -> None:
        self._source = iter(entries)
        self._waiting: deque[Task] = deque()
        self._running: dict[int, Task] = {}
        self._durations: deque[float] = deque(maxlen=_KNOWN)
        self._rule = stragglers
        self._exhausted = False

    @property
    def waiting(self) -> int:
        """Number of entries that wait for a worker."""
        return len(self._waiting)

    @property
    def over(self) -> bool:
        """True once every entry has its outcome."""
        return self._exhausted and not self._waiting and not self._running

    def fetch(self) -> bool:
        """Have one more entry of the source wait; False: there is none."""
        entry = None if self._exhausted else next(self._source, None)
        if entry is None:
            self._exhausted = True
            return False
        self._waiting.append(Task(entry))
        return True

    def take(self, now: float) -> Task | None:
        """Return what an idle worker runs: an entry that waits, else the next of the source, else a straggler."""
        if self._waiting or self.fetch():
            task = self._waiting.popleft()
        else:
            straggler = self._straggler(now)
            if straggler is None:
                return None
            task = straggler
        self._running[id(task)] = task
        task.begun.append(now)
        return task

    def _straggler(self, now: float) -> Task | None:
        if len(self._durations) < self._rule.seen:
            return None
        limit = max(self._rule.factor * statistics.median(self._durations), self._rule.at_least_s)
        late = [
            task for task in self._running.values() if len(task.begun) == 1 and now - task.begun[0] > limit
        ]
        return min(late, key=lambda task: task.begun[0], default=None)

    def finished(self, task: Task, outcome: Outcome, begun: float, now: float) -> Outcome | None:
        """Return the outcome if it counts.

        None: another copy was first, or this one failed and another one still runs.
        """
        task.begun.remove(begun)
        if task.settled or (outcome.state == "failed" and task.begun):
            return None
        if outcome.state in ("done", "partial"):
            self._durations.append(now - begun)
        self._settle(task)
        return outcome

    def died(self, task: Task, begun: float, *, fatal: bool) -> bool:
        """Note that a worker died with the task, and let it wait for another one unless another copy runs.

        Returns:
            True if the death is `fatal` and the task is given up; its outcome is the caller's to make.
        """
        task.begun.remove(begun)
        if task.settled or task.begun:
            return False
        if fatal:
            self._settle(task)
            return True
        del self._running[id(task)]
        self._waiting.appendleft(task)
        return False

    def _settle(self, task: Task) -> None:
        task.settled = True
        del self._running[id(task)]
