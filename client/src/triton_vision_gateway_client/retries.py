"""Deadlines and the decision to send a request again. No I/O and no waiting here.

A call is sent again after these failures:

- `Repeat.ALWAYS`, a call that reads or computes, or that has an `Idempotency-Key`: a lost connection; 429 and 503 with
  `Retry-After`; 409 while the key's first request is in progress; 502, 503 and 504 of a proxy.
- `Repeat.REFUSED`, one that changes something (a frame of a session): a connection that couldn't be opened;
  429 and 503 with `Retry-After`, which say that nothing was done.
- `Repeat.NEVER`, one that asks for liveness or readiness: none.

`Retry-After` is the least wait. A random part is added, so that clients that were refused together don't return at
once.
"""

from __future__ import annotations

import enum
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from triton_vision_gateway_client.errors import ConnectionFailed, DeadlineExceeded, GatewayError, is_foreign

_REFUSALS = (429, 503)
_PROXIES = (502, 503, 504)


class Repeat(enum.Enum):
    """Kinds of calls by what may be sent again."""

    ALWAYS = "always"
    REFUSED = "refused"
    NEVER = "never"


class Deadline:
    """The moment at which a call has to be over; None: never."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.seconds = seconds
        self._at = None if seconds is None else clock() + seconds

    def remaining(self) -> float | None:
        """Return the seconds that are left, 0 if it has passed; None if there is no limit."""
        return None if self._at is None else max(0.0, self._at - self._clock())

    @property
    def passed(self) -> bool:
        """True once the time is over."""
        return self._at is not None and self._clock() >= self._at

    def error(self) -> DeadlineExceeded:
        """Return the exception for it."""
        return DeadlineExceeded(
            f"the {self.seconds:g} seconds for this call have passed"
            if self.seconds is not None
            else "time is over",
            code="deadline_exceeded",
            what_to_do="Allow more with timeout=, or send less at once.",
        )

    def check(self) -> None:
        """Raise DeadlineExceeded once the time is over."""
        if self.passed:
            raise self.error()

    def share(self) -> float | None:
        """Return the seconds that a part of the work may take, which is what is left.

        Raises:
            DeadlineExceeded: nothing is.
        """
        self.check()
        remaining = self.remaining()
        return None if remaining is None else max(remaining, 0.001)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits of sending again.

    `most` attempts follow the first one. Without `Retry-After` the waits are random, up to `first_s` and then up to
    twice as much each time, at most `longest_s`. An answer that asks for more than `patience_s` is raised at once.
    """

    most: int = 3
    first_s: float = 0.5
    longest_s: float = 20.0
    patience_s: float = 120.0


class Attempts:
    """The attempts of one call."""

    def __init__(
        self,
        policy: RetryPolicy,
        repeat: Repeat,
        deadline: Deadline,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._repeat = repeat
        self._deadline = deadline
        self._fraction = fraction
        self.made = 0
        self.lost = False  # an attempt broke off, and may have been carried out

    def pause_after(self, error: GatewayError) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            GatewayError: `error` itself, if there is none: it wouldn't be safe, or help, or be in time.
        """
        self.made += 1
        self.lost = self.lost or (isinstance(error, ConnectionFailed) and error.sent)
        if self.made > self._policy.most or not self._may_repeat(error):
            raise error
        pause = self._pause(error)
        remaining = self._deadline.remaining()
        if pause > self._policy.patience_s or (remaining is not None and pause >= remaining):
            raise error
        return pause

    def _may_repeat(self, error: GatewayError) -> bool:
        if self._repeat is Repeat.NEVER:
            return False
        if isinstance(error, ConnectionFailed):
            return self._repeat is Repeat.ALWAYS or not error.sent
        if is_foreign(error) and error.status in _PROXIES:
            return self._repeat is Repeat.ALWAYS
        refused = error.status in _REFUSALS or error.code == "idempotency_key_in_use"
        return refused and error.retry_after is not None

    def _pause(self, error: GatewayError) -> float:
        if error.retry_after is not None:
            return error.retry_after * (1 + 0.1 * self._fraction())
        span = min(self._policy.longest_s, self._policy.first_s * 2.0 ** (self.made - 1))
        return span * self._fraction()
