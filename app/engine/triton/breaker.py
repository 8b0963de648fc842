"""Circuit breaker of a server: while it is away or silent, callers are refused at once and only the watcher calls
it.

Polls alone move it. One that is refused, or `silences` in a row that nobody answers, open it: a caller's own time-out
says only that the caller had little time. Open, no caller tries: the watcher's next poll does (half open), and what
answers that poll closes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from app.errors import TritonUnavailable

# The watcher asks several times a second: who comes again after this finds out.
RETRY_AFTER_S = 1.0


class Breaker:
    """One server's. Its watcher alone writes; any thread reads. Open until the first answer.

    Args:
        silences: polls without an answer, one after another, that open it.
    """

    def __init__(self, silences: int = 2) -> None:
        self._silences = silences
        self._silent = 0
        self._openings = {"refused": 0, "silent": 0}
        self.open = True
        self.reason = "not asked yet"

    def check(self) -> None:
        """Before anything is sent.

        Raises:
            TritonUnavailable: it is open; says why.
        """
        if self.open:
            raise TritonUnavailable(self.reason, retry_after=RETRY_AFTER_S)

    def answered(self) -> None:
        """A poll went well."""
        self._silent = 0
        self.open = False

    def failed(self, reason: str, *, silent: bool) -> bool:
        """A poll didn't go well, `silent`: there was no answer in time; whether the breaker is open now."""
        self._silent = self._silent + 1 if silent else 0
        if not self.open and silent and self._silent < self._silences:
            return False
        self._openings["silent" if silent else "refused"] += not self.open
        self.reason, self.open = reason, True
        return True

    def shut(self, reason: str) -> None:
        """Open for good: nothing is sent any more."""
        self.reason, self.open = reason, True

    def openings(self) -> Mapping[str, int]:
        """Number of times that the breaker has opened, by reason."""
        return Counter(self._openings)
