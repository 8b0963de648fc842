"""Retries of calls to a server: few, soon, within the deadline, and out of a budget.

An inference changes nothing, so it may run twice; of tensors in shared memory see `app.engine.triton.leases`.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from app.deadline import Deadline
from app.engine.triton.breaker import Breaker
from app.errors import GatewayError, ModelNotReady, TritonUnavailable

# Before the second and the third attempt, in seconds, each jittered.
_PAUSES_S = (0.03, 0.12)
_JITTER = (0.5, 1.5)
# Counted from the start: 0 is a number that dashboards can show, nothing is not.
_REASONS = ("unavailable", "shutdown", "not_ready")


class RetryBudget:
    """A bucket of tokens, a retry each: requests fill it, so that retries never multiply the load of a sick server.

    Args:
        share: of a token that each request brings.
        per_second: tokens that time brings, or a quiet server would get none.
        most: that it holds; it begins full.
    """

    def __init__(self, share: float = 0.1, per_second: float = 1.0, most: float = 50.0) -> None:
        self._share, self._per_second, self._most = share, per_second, most
        self._tokens = most
        self._filled = time.monotonic()
        self._lock = threading.Lock()

    def note_request(self) -> None:
        """A request is sent for the first time."""
        with self._lock:
            self._tokens = min(self._most, self._tokens + self._share)

    def take(self) -> bool:
        """Take a token if one is available; return whether it was."""
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._most, self._tokens + (now - self._filled) * self._per_second)
            self._filled = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class Retries:
    """Retries of one server. Safe to use from many threads.

    Args:
        breaker: while it is open nothing is sent, for the first time or again.
        reason_of: why an error is worth another attempt, in a word; None: it isn't.
        budget: see there.
    """

    def __init__(
        self,
        breaker: Breaker,
        reason_of: Callable[[GatewayError], str | None],
        budget: RetryBudget | None = None,
    ) -> None:
        self.breaker = breaker
        self._reason_of = reason_of
        self._budget = budget or RetryBudget()
        self._lock = threading.Lock()
        self._done = Counter(dict.fromkeys((*_REASONS, "region_lost"), 0))
        self._refused = Counter(dict.fromkeys(_REASONS, 0))

    def run(self, attempt: Callable[[], None], deadline: Deadline) -> None:
        """`attempt()`, up to three times, a short pause between them.

        It is never repeated once the deadline is over, be it because the caller left.

        Raises:
            GatewayError: the last attempt's; TritonUnavailable without any, if the breaker is open.
        """
        deadline.check("infer")
        if self.breaker.open:
            self.breaker.check()
        self._budget.note_request()
        for pause in _PAUSES_S:
            try:
                attempt()
            except (TritonUnavailable, ModelNotReady) as error:
                if not self._again(error, pause * random.uniform(*_JITTER), deadline):  # noqa: S311  # no secret
                    raise
            else:
                return
        attempt()

    def once(self, attempt: Callable[[], None], deadline: Deadline) -> None:
        """`attempt()` without any retry here, because another server can be asked.

        Raises:
            GatewayError: see `run`.
        """
        deadline.check("infer")
        self.breaker.check()
        self._budget.note_request()
        attempt()

    def count(self, reason: str) -> None:
        """Count a retry outside the budget; there is at most one per lease and restart of the server."""
        with self._lock:
            self._done[reason] += 1

    def counts(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Retries by reason: those that were made, and those that the budget refused."""
        with self._lock:
            return dict(self._done), dict(self._refused)

    def _again(self, error: GatewayError, pause: float, deadline: Deadline) -> bool:
        """Wait; return True if another attempt is to be made."""
        reason = self._reason_of(error)
        if reason is None or self._over(deadline, pause):
            return False
        if not self._budget.take():
            with self._lock:
                self._refused[reason] += 1
            return False
        time.sleep(pause)
        if self._over(deadline):
            return False
        self.count(reason)
        return True

    def _over(self, deadline: Deadline, seconds: float = 0.0) -> bool:
        return self.breaker.open or deadline.remaining() <= seconds
