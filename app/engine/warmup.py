"""First runs of branches, before anybody waits for one: it costs more than later ones, and shows whether they run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from app.engine.base import Deadline, ModelState
from app.errors import DeadlineExceeded, GatewayError, InsufficientGpuMemory, TritonUnavailable
from routing.catalogue import Branch
from routing.policy import Readiness

_log = logging.getLogger(__name__)
RETRY_S, RETRY_MAX_S = 30.0, 600.0


def failed(state: ModelState, error: GatewayError, limit_s: float) -> ModelState:
    """The state of a branch whose first run failed: not served, and it says why."""
    if isinstance(error, InsufficientGpuMemory):
        return replace(state, readiness=Readiness.OUT_OF_MEMORY, reason=f"first run: {error.detail}")
    said = f"it took longer than {limit_s:g} s" if isinstance(error, DeadlineExceeded) else error.detail
    return replace(state, readiness=Readiness.UNAVAILABLE, reason=f"first run failed: {said}")


@dataclass(slots=True)
class _Trial:
    """One branch on its way: `error` None and `done` is warm. `again`: it was warm before, and serves meanwhile."""

    branch: Branch
    version: str
    again: bool = False
    done: bool = False
    error: GatewayError | None = None
    failures: int = 0
    retry_at: float = 0.0


class Warmer:
    """Runs branches that have become ready, one after another, in a thread of its own.

    Args:
        run: one inference of a branch; it raises an error of ours, by the deadline at the latest.
        limit_s: time for one branch.
        changed: called after every run: `verdict` may answer something else now.
    """

    def __init__(
        self, run: Callable[[Branch, Deadline], None], limit_s: float, changed: Callable[[], None]
    ) -> None:
        self._run = run
        self._limit_s = limit_s
        self._changed = changed
        self._trials: dict[str, _Trial] = {}
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="warm-up", daemon=True)
        self._thread.start()

    def verdict(self, branch: Branch, state: ModelState) -> ModelState:
        """`state` of a branch that the server calls READY, or that it is not served yet, or not at all."""
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
        return replace(state, readiness=Readiness.LOADING, reason="waits for its first run")

    def again(self, name: str) -> None:
        """The server has loaded the branch, or a part of it, anew: it serves, and is run once more meanwhile."""
        with self._wake:
            old = self._trials.get(name)
            if old is not None:
                again = (old.again or old.done) and old.error is None
                self._trials[name] = _Trial(old.branch, old.version, again)
                self._wake.notify()

    def passed(self, branch: Branch, version: str) -> None:
        """The branch has just been run elsewhere: it serves at once."""
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
        """No run begins any more; `join` waits for the one under way."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def join(self) -> None:
        self._thread.join()

    def _work(self) -> None:
        while (trial := self._next()) is not None:
            error: GatewayError | None = None
            started = time.monotonic()
            try:
                self._run(trial.branch, Deadline.after(self._limit_s))
            except GatewayError as caught:
                error = caught
            self._finish(trial, error, time.monotonic() - started)
            self._changed()

    def _next(self) -> _Trial | None:
        """The next branch to run; None: closed."""
        with self._wake:
            while not self._closed:
                now = time.monotonic()
                for trial in self._trials.values():
                    if not trial.done or (trial.error is not None and trial.retry_at <= now):
                        return trial
                self._wake.wait(1)
        return None

    def _finish(self, trial: _Trial, error: GatewayError | None, seconds: float) -> None:
        name = trial.branch.name
        with self._wake:
            if self._closed or self._trials.get(name) is not trial:
                return
            if isinstance(
                error, TritonUnavailable
            ):  # says nothing of the branch: asked again once it is back
                del self._trials[name]
                return
            trial.done, trial.error = True, error
            if error is not None:
                trial.retry_at = time.monotonic() + min(RETRY_S * 2 ** min(trial.failures, 32), RETRY_MAX_S)
                trial.failures += 1
        if error is None:
            _log.info("%s: first run in %.0f ms", name, seconds * 1000)
        else:
            _log.warning("%s isn't served: first run: %s", name, error)
