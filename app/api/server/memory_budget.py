"""Memory for large pictures: so many bytes may be in use at once in this process; further ones wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from app.deadline import Deadline
from app.errors import DeadlineExceeded

# Pictures of less than this part of the budget aren't counted: the places of the families bound them.
SMALL_PART = 64
# A stream of large pictures takes the same pages again and again: they go back once it has paused for so long.
_PAUSE_S = 2.0


class MemoryBudget:
    """Counts the estimated memory of the large pictures that are worked on. Lives on the event loop: no lock.

    Args:
        limit: bytes; a picture that is larger than all of it is taken when there is no other.
        give_back: called on a thread of its own once no large picture has been worked on for a while.
    """

    def __init__(self, limit: int, give_back: Callable[[], object] | None = None) -> None:
        self._limit = limit
        self.least = limit // SMALL_PART  # bytes that count
        self._give_back = give_back
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.used = 0

    async def take(self, nbytes: int, deadline: Deadline) -> None:
        """Wait, first come first served, until `nbytes` that count are free.

        Raises:
            DeadlineExceeded: not enough bytes became free in time (stage `queue`).
        """
        if not nbytes or (not self._waiting and self._fits(nbytes)):
            self.used += nbytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((nbytes, turn))
        try:
            async with asyncio.timeout(deadline.remaining()):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release(nbytes)
            else:
                with contextlib.suppress(ValueError):  # `_next` may have dropped it already
                    self._waiting.remove((nbytes, turn))
                self._next()
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded("queue") from error
            raise

    def release(self, nbytes: int) -> None:
        """Give back what `take` took."""
        if nbytes:
            self.used -= nbytes
            self._next()
            if not self.used:
                self._later()

    def _fits(self, nbytes: int) -> bool:
        return not self.used or self.used + nbytes <= self._limit

    def _next(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            nbytes, turn = self._waiting.popleft()
            if not turn.done():
                self.used += nbytes
                turn.set_result(None)

    def _later(self) -> None:
        if self._give_back is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_PAUSE_S, self._paused)

    def _paused(self) -> None:
        if self._give_back is not None and not self.used:
            asyncio.get_running_loop().run_in_executor(None, self._give_back)
