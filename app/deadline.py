"""The time that a request, or a part of its work, may still take."""

from __future__ import annotations

import time

from app.errors import DeadlineExceeded


class Deadline:
    """A moment on the monotonic clock by which the answer must be there; never after that of `whole`.

    `queued_s`: seconds that the work has waited so far; whoever reports stage `queue` takes them.
    """

    __slots__ = ("_at", "_whole", "queued_s")

    def __init__(self, at: float, whole: Deadline | None = None) -> None:
        self._at = at
        self._whole = whole
        self.queued_s = 0.0

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline that is `seconds` from now."""
        return cls(time.monotonic() + seconds)

    def within(self, seconds: float) -> Deadline:
        """Return the deadline of a part of the work: `seconds` from now, or when this one is over or cancelled."""
        return Deadline(time.monotonic() + seconds, self)

    def part(self) -> Deadline:
        """Return the deadline of a part of the work that may take all the time that is left."""
        return Deadline(self._at, self)

    def cancel(self) -> None:
        """Expire now, together with all parts: nobody waits for the answer any more."""
        self._at = 0.0

    def remaining(self) -> float:
        """Return the seconds left, at least 0."""
        return max(0.0, self.at() - time.monotonic())

    def check(self, stage: str) -> None:
        """Raise DeadlineExceeded, naming `stage`, once the time is over."""
        now, deadline = time.monotonic(), self
        while now < deadline._at:  # its own class; a call per part would double the cost of a check
            whole = deadline._whole
            if whole is None:
                return
            deadline = whole
        raise DeadlineExceeded(stage)

    def at(self) -> float:
        """Return the moment on the monotonic clock."""
        return self._at if self._whole is None else min(self._at, self._whole.at())
