"""First runs of branches, before a caller waits for one: a first run takes longer, and shows whether a branch runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from app.deadline import Deadline
from app.engine.base import ModelState
from app.errors import DeadlineExceeded, GatewayError, InsufficientGpuMemory, TritonUnavailable
from routing.catalogue import Branch
from routing.policy import Readiness

_log = logging.getLogger(__name__)
RETRY_S, RETRY_MAX_S = 30.0, 600.0
_AWAY_RETRY_S = 1.0  # after a run that only says that the server is away
# Runs at a time. One that takes longer than its patience no longer counts, and nobody waits for it.
AT_ONCE = 4
PATIENCE_S = 5.0
_MOST = 32  # runs at a time, those that hang included
# An operator may load and unload a branch all the time.
_LINES_A_MINUTE, _MINUTE_S = 4, 60.0


def failed(state: ModelState, error: GatewayError, limit_s: float) -> ModelState:
    """The state of a branch whose first run failed: not served, and it says why."""
    if isinstance(error, InsufficientGpuMemory):
        return replace(state, readiness=Readiness.OUT_OF_MEMORY, reason=f"first run: {error.detail}")
    said = f"it took longer than {limit_s:g} s" if isinstance(error, DeadlineExceeded) else error.detail
    return replace(state, readiness=Readiness.UNAVAILABLE, reason=f"first run failed: {said}")


@dataclass(slots=True, eq=False)
class _Trial:
    """One branch on its way: `error` None and `done` is warm. `again`: it was warm before, and serves meanwhile.

    `due` on the monotonic clock: it isn't run before. `begun` likewise: when its run under way began.
    """

    branch: Branch
    version: str
    again: bool = False
    done: bool = False
    error: GatewayError | None = None
    failures: int = 0
    due: float = 0.0
    begun: float = 0.0


class Warmer:
    """Runs branches that have become ready, several side by side, each in a thread of its own.

    Branches that have failed come last. A run that hangs delays no other branch.

    Args:
        run: one inference of a branch; it raises an error of ours, by the deadline at the latest.
        limit_s: time for one branch.
        changed: called after every run, and when one hangs: `verdict` may answer something else now.
        order: names of branches, the ones to run first; the others follow.
        at_once: most runs at a time; None: a few.
    """

    def __init__(
        self,
        run: Callable[[Branch, Deadline], None],
        limit_s: float,
        changed: Callable[[], None],
        order: Sequence[str] = (),
        at_once: int | None = None,
    ) -> None:
        self._run = run
        self._limit_s = limit_s
        self._at_once = at_once
        self._changed = changed
        self._rank = {name: place for place, name in enumerate(order)}
        self._trials: dict[str, _Trial] = {}
        self._running: dict[str, tuple[_Trial, threading.Thread]] = {}
        self._said: dict[str, tuple[str, list[float]]] = {}
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="warm-up", daemon=True)
        self._thread.start()

    def verdict(self, branch: Branch, state: ModelState) -> ModelState:
        """Return `state` for a branch that may serve, or a state that says why it doesn't serve yet or at all."""
        with self._wake:
            trial = self._trials.get(branch.name)
            if trial is None or trial.version != state.version:
                again = trial is not None and (trial.again or trial.done) and trial.error is None
                trial = self._trials[branch.name] = _Trial(branch, state.version, again)
                self._wake.notify()
            if trial.error is not None:
                return failed(state, trial.error, self._limit_s)
            if trial.done or trial.again:
                return state
            hangs = self._overdue(branch.name)
        reason = f"its first run takes longer than {PATIENCE_S:g} s" if hangs else "waits for its first run"
        return replace(state, readiness=Readiness.LOADING, reason=reason, settling=not hangs)

    def again(self, name: str) -> None:
        """Warm a reloaded branch up again; it keeps serving meanwhile."""
        with self._wake:
            old = self._trials.get(name)
            if old is not None:
                again = (old.again or old.done) and old.error is None
                self._trials[name] = _Trial(old.branch, old.version, again)
                self._wake.notify()

    def passed(self, branch: Branch, version: str) -> None:
        """Mark a branch as warm that has just been run elsewhere; it serves at once."""
        with self._wake:
            self._trials[branch.name] = _Trial(branch, version, again=True, done=True)

    def forget(self, name: str) -> None:
        """The branch isn't ready any more."""
        with self._wake:
            self._trials.pop(name, None)

    def forget_all(self) -> None:
        """The server is away."""
        with self._wake:
            self._trials.clear()

    def close(self) -> None:
        """Stop beginning runs; `join` waits for the running ones."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the runs under way, at most so many seconds."""
        self._thread.join()
        with self._wake:
            threads = [thread for _, thread in self._running.values()]
        limit = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in threads:
            thread.join(None if limit is None else max(0.0, limit - time.monotonic()))

    def _overdue(self, name: str) -> bool:
        """True if a run of the branch has used up its patience; the caller holds the lock."""
        running = self._running.get(name)
        return running is not None and time.monotonic() - running[0].begun > PATIENCE_S

    def _work(self) -> None:
        late: set[str] = set()
        while not self._closed:
            with self._wake:
                trial = self._next()
                if trial is not None:
                    self._begin(trial)
                elif not self._closed:
                    self._wake.wait(0.5)
                before, late = late, {name for name in self._running if self._overdue(name)}
            if late - before:
                self._changed()

    def _next(self) -> _Trial | None:
        """The next branch to run, if there is one and room for its run."""
        patient = sum(not self._overdue(name) for name in self._running)
        if patient >= (self._at_once or AT_ONCE) or len(self._running) >= _MOST:
            return None
        now = time.monotonic()
        waiting = (
            trial
            for name, trial in self._trials.items()
            if name not in self._running and trial.due <= now and (not trial.done or trial.error is not None)
        )
        return min(waiting, key=self._precedence, default=None)

    def _precedence(self, trial: _Trial) -> tuple[int, int]:
        return trial.failures, self._rank.get(trial.branch.name, len(self._rank))

    def _begin(self, trial: _Trial) -> None:
        trial.begun = time.monotonic()
        name = trial.branch.name
        thread = threading.Thread(target=self._try, args=(trial,), name=f"first-run-{name}", daemon=True)
        self._running[name] = trial, thread
        thread.start()

    def _try(self, trial: _Trial) -> None:
        error: GatewayError | None = None
        try:
            self._run(trial.branch, Deadline.after(self._limit_s))
        except GatewayError as caught:
            error = caught
        except Exception as caught:  # noqa: BLE001  # a defect here mustn't leave a branch waiting for ever
            _log.exception("%s could not be run", trial.branch.name)
            error = GatewayError(type(caught).__name__)
        self._finish(trial, error, time.monotonic() - trial.begun)
        self._changed()

    def _finish(self, trial: _Trial, error: GatewayError | None, seconds: float) -> None:
        name = trial.branch.name
        with self._wake:
            del self._running[name]
            self._wake.notify()
            if self._closed or self._trials.get(name) is not trial:
                return
            now = time.monotonic()
            if isinstance(error, TritonUnavailable):  # says nothing of the branch
                trial.due = now + _AWAY_RETRY_S
                return
            trial.done, trial.error = True, error
            if error is not None:
                trial.due = now + min(RETRY_S * 2 ** min(trial.failures, 32), RETRY_MAX_S)
                trial.failures += 1
        if error is None:
            self._say(name, logging.INFO, "first run in %.0f ms", seconds * 1000)
        else:
            self._say(name, logging.WARNING, "not served: first run: %s", error)

    def _say(self, name: str, level: int, words: str, value: object) -> None:
        """Log a line about a branch where it says something new; one that changes all the time gets few lines."""
        now = time.monotonic()
        before, times = self._said.get(name, ("", []))
        key = words if level == logging.INFO else words % value
        times = [at for at in times if now - at < _MINUTE_S]
        if key == before or len(times) >= _LINES_A_MINUTE:
            level = logging.DEBUG
        else:
            self._said[name] = key, [*times, now]
        _log.log(level, f"%s: {words}", name, value)
