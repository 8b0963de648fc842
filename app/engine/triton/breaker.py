"""Circuit breaker of a server: while it is away or silent, callers are refused at once and only the watcher calls
it.

Only polls change the breaker. It opens after one refused poll, or after `silences` polls in a row without an answer. A
poll whose connection breaks has none either: the next poll makes another connection.
A time-out of a caller doesn't count, since it only shows that the caller had little time. While the breaker is open,
callers are refused; an answer to the watcher's next poll (half open) closes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from app.errors import TritonUnavailable

# The watcher polls several times per second, so a retry after this time meets the new state.
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
        """Count a successful poll."""
        self._silent = 0
        self.open = False

    def failed(self, reason: str, *, silent: bool) -> bool:
        """Count a failed poll, `silent` if it had no answer; return True if the breaker is open now."""
        self._silent = self._silent + 1 if silent else 0
        if not self.open and silent and self._silent < self._silences:
            return False
        self._openings["silent" if silent else "refused"] += not self.open
        self.reason, self.open = reason, True
        return True

    def shut(self, reason: str) -> None:
        """Open the breaker for good: nothing is sent any more."""
        self.reason, self.open = reason, True

    def openings(self) -> Mapping[str, int]:
        """Number of times that the breaker has opened, by reason."""
        return Counter(self._openings)
