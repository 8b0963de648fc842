"""The time between the order to stop and the end of listening, in which balancers find out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

# A prober that asked twice within this time is a balancer's, which asks again as soon.
_REGULAR_S = 2.5
_RED_ANSWERS = 4  # HAProxy gives a server up after 3 (`fall`); the next question says that it has
_LONGEST_S = 3.0
_LOOK_S = 0.02


class Drain:
    """Says how far a stop is; signal handlers and the event loop share it.

    `/readyz` is red from the order to stop on, while requests are still taken. With `seconds` that goes on for so long.
    With 0 it ends at once, unless somebody keeps asking `/readyz`: then it ends when they have seen it red
    `_RED_ANSWERS` times, after `_LONGEST_S` at most.

    Args:
        seconds: GATEWAY_DRAIN_S.
        clock: monotonic seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._green = (-math.inf, -math.inf)  # the last two times
        self._red = 0
        self.begun = False  # True after the order to stop
        self._began = 0.0
        self._length = 0.0
        self._over = False

    @property
    def ended(self) -> bool:
        """True once no more connections are taken."""
        return self._over

    @property
    def closing(self) -> bool:
        """True in the second half, when connections end with their next answer."""
        return self.begun and self._elapsed() >= self._length / 2

    def begin(self) -> float:
        """Take the order to stop.

        Returns:
            The longest time in seconds that the drain may take.
        """
        now = self._clock()
        self._length = self._seconds or (_LONGEST_S if now - self._green[0] <= _REGULAR_S else 0.0)
        self.begun, self._began = True, now
        self._over = not self._length
        return self._length

    def cut(self) -> None:
        """End it now."""
        self._over = True

    def probed(self, *, green: bool) -> None:
        """Count one answer of `/readyz`."""
        if not self.begun:
            if green:
                self._green = (self._green[1], self._clock())
            return
        self._red += 1
        if not self._seconds and self._red >= _RED_ANSWERS:
            self._over = True

    def wait(self) -> None:
        """Return when it has ended, from another thread than the one that handles signals."""
        while not self._over:
            time.sleep(_LOOK_S)
            if self._elapsed() >= self._length:
                self._over = True

    def _elapsed(self) -> float:
        return self._clock() - self._began if self.begun else 0.0
