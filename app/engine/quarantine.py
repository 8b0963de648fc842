"""Branches whose device memory ran out: not served until they are reloaded and have run once more.

After one such failure a model can keep failing although memory is free again, because what it holds is never given
back. So the failing branch is taken out at once, with its twin, which has the same weights model; the others serve on,
and a thread of its own recovers one branch after another, with a growing pause between attempts that fail.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from app.engine.base import NOT_THERE, ModelState
from app.errors import GatewayError, InsufficientGpuMemory, ModelNotReady
from routing.catalogue import Branch
from routing.policy import Readiness

_log = logging.getLogger(__name__)
# Several gateways at one server see the same failure: with pauses of their own, the first to try recovers it for all.
_JITTER = (0.75, 1.25)
# reloaded: reloaded here; ran: it ran again without that (nobody may load it, or another gateway has done it);
# gone: somebody else has unloaded it, so there is nothing to recover.
Recovery = Literal["reloaded", "ran", "gone"]


@dataclass(slots=True)
class _Case:
    """One branch: since when (UTC), what its run said, and the attempts so far; `due` on the monotonic clock.

    `reloaded`: the server has been seen to reload it since the last attempt; `hurry`: it has been away since.
    """

    branch: Branch
    since: datetime
    error: str
    due: float
    attempts: int = 0
    last: str = ""
    reloaded: bool = False
    hurry: bool = False

    def reason(self) -> str:
        words = f"a run was out of memory at {_clock(self.since)}: {self.error}"
        if self.last:
            words += f"; attempt {self.attempts} to recover it failed: {self.last}"
        wait = self.wait()
        when = f"at {_clock(datetime.now(UTC) + timedelta(seconds=wait))}" if wait else "is under way"
        return f"{words}; attempt {self.attempts + 1} to reload it and run it {when}"

    def wait(self) -> float:
        """Seconds until the next attempt; 0 while it is under way."""
        return max(0.0, self.due - time.monotonic())


class Quarantine:
    """Takes branches out, and lets them serve again.

    Args:
        recover: one attempt on a branch: return what was done, once it has run; raise an error of ours if it can't.
            It is told whether the branch has been seen to be reloaded meanwhile.
        changed: called with a branch's name when `verdict` answers something else than before.
        pause_s: before the first attempt, in seconds; doubled after each that fails.
        longest_s: the longest pause.
    """

    def __init__(
        self,
        recover: Callable[[Branch, bool], Recovery],
        changed: Callable[[str], None],
        pause_s: float = 1.0,
        longest_s: float = 60.0,
    ) -> None:
        self._recover = recover
        self._changed = changed
        self._pause_s, self._longest_s = pause_s, longest_s
        self._cases: dict[str, _Case] = {}
        self.cases: Mapping[str, object] = self._cases  # by branch; to be looked at before each run
        self._failures: Counter[str] = Counter()
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="quarantine", daemon=True)
        self._thread.start()

    def note_failure(self, branch: Branch, error: InsufficientGpuMemory | ModelNotReady) -> None:
        """Take the branch out if its run had no memory.

        Raises:
            InsufficientGpuMemory: the branch was unloaded, to be recovered, under this run.
        """
        if isinstance(error, InsufficientGpuMemory):
            error.retry_after = self.add(branch, error)
        else:
            self.refuse(branch.name, error)

    def add(self, branch: Branch, error: InsufficientGpuMemory) -> float:
        """Quarantine a branch whose run lacked memory; return the seconds until it may serve again."""
        with self._wake:
            self._failures[branch.name] += 1
            known = self._cases.get(branch.name)
            if known is not None:
                return max(known.wait(), 1.0)
            case = _Case(branch, datetime.now(UTC), _line(error), time.monotonic() + self._pause(0))
            self._cases.update(dict.fromkeys(branch.same_weights, case))
            self._wake.notify()
        _log.warning(
            "%s is not served until it has recovered: %s", " and ".join(branch.same_weights), error.detail
        )
        self._say_changed(branch)
        return max(case.wait(), 1.0)

    def note_reloads(self, models: Collection[str]) -> None:
        """Note that the server reloaded these models or stopped serving them, perhaps for another gateway."""
        with self._wake:
            for case in self._cases.values():
                case.reloaded = case.reloaded or any(model.name in models for model in case.branch.models)

    def holds(self, name: str) -> bool:
        return name in self._cases

    def verdict(self, state: ModelState) -> ModelState:
        """Return `state`, or a state that says since when its branch is out of memory and what happens next."""
        case = self._cases.get(state.name)
        if case is None or state.readiness is Readiness.UNREACHABLE:
            return state
        if state.readiness in NOT_THERE and state.name != case.branch.name:  # a twin that nobody has built
            return state
        return replace(
            state,
            readiness=Readiness.OUT_OF_MEMORY,
            reason=case.reason(),
            retry_after=max(case.wait(), 1.0),
        )

    def verdicts(self, states: Mapping[str, ModelState]) -> Mapping[str, ModelState]:
        """`verdict` of each."""
        return {name: self.verdict(state) for name, state in states.items()} if self.cases else states

    def counts(self) -> tuple[Mapping[str, int], frozenset[str], Mapping[tuple[str, str], int]]:
        """Failed runs by branch, the branches in quarantine, and attempts by branch and outcome."""
        with self._wake:
            return dict(self._failures), frozenset(self._cases), dict(self._attempts)

    def try_now(self) -> None:
        """The server was away and is back: it may have loaded everything again."""
        with self._wake:
            for case in self._cases.values():
                case.reloaded = case.hurry = True
                case.due = time.monotonic()
            self._wake.notify()

    def close(self) -> None:
        """Stop beginning attempts; `join` waits for the running one."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def join(self, timeout_s: float | None = None) -> None:
        self._thread.join(timeout_s)

    def refuse(self, name: str, cause: Exception | None = None) -> None:
        """Refuse a run while the branch is in quarantine.

        Raises:
            InsufficientGpuMemory: it is.
        """
        case = self._cases.get(name)
        if case is not None:
            raise InsufficientGpuMemory(
                f"{name}: {case.reason()}", retry_after=max(case.wait(), 1.0)
            ) from cause

    def _pause(self, attempts: int) -> float:
        doubled = self._pause_s * 2.0 ** min(attempts, 32)
        return min(doubled, self._longest_s) * random.uniform(*_JITTER)  # noqa: S311  # no secret

    def _work(self) -> None:
        while (case := self._next()) is not None:
            outcome = "failed"
            error: GatewayError | None = None
            try:
                outcome = self._recover(case.branch, case.reloaded)
            except InsufficientGpuMemory as caught:
                outcome, error = "out_of_memory", caught
            except GatewayError as caught:
                error = caught
            except Exception as caught:  # noqa: BLE001  # a defect here mustn't leave branches out for ever
                _log.exception("%s could not be recovered", case.branch.name)
                error = GatewayError(type(caught).__name__)
            self._finish(case, outcome, error)
            self._say_changed(case.branch)

    def _say_changed(self, branch: Branch) -> None:
        for name in branch.same_weights:
            self._changed(name)

    def _next(self) -> _Case | None:
        """The next case whose pause is over; None: closed."""
        with self._wake:
            while not self._closed:
                case = min(self._cases.values(), key=lambda case: case.due, default=None)
                if case is not None and case.wait() <= 0:
                    case.hurry = False
                    return case
                self._wake.wait(None if case is None else case.wait())
        return None

    def _finish(self, case: _Case, outcome: str, error: GatewayError | None) -> None:
        name = case.branch.name
        with self._wake:
            if self._closed or self._cases.get(name) is not case:
                return
            self._attempts[name, outcome] += 1
            if error is None:
                for same in case.branch.same_weights:
                    self._cases.pop(same, None)
            else:
                case.attempts += 1
                case.last = _line(error)
                case.reloaded = case.hurry
                case.due = time.monotonic() + (0.0 if case.hurry else self._pause(case.attempts))
        if error is None:
            _log.info("%s is out of quarantine: %s", name, outcome)
        else:
            _log.warning("%s stays out, attempt %d: %s", name, case.attempts, error.detail)


def _line(error: GatewayError) -> str:
    """Join the error's text into one line; backends add lines of their own."""
    return " ".join(error.detail.split())


def _clock(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
