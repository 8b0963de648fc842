"""The order in which concurrent requests of one session reach its tracker.

Their frames are decoded and inferred side by side; only then each waits for its turn: until no other request of that
session comes before it. So a client may have several frames in flight. `LocalOrder` knows the requests of this process,
`app.state.redis.order` those of all replicas and workers.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Protocol

from app.deadline import Deadline
from app.errors import DeadlineExceeded, Overloaded


class Turn(Protocol):
    """One request's place in the line of its session."""

    async def come(self, deadline: Deadline) -> None:
        """Wait until it is this request's turn.

        Raises:
            DeadlineExceeded: those before it took too long (stage `queue`).
            SessionsUnavailable: the store of the order can't be reached.
        """


class SessionOrder(Protocol):
    """Order of the requests of all sessions; used on one event loop."""

    def join(self, key: str, timestamp: float | None) -> AbstractAsyncContextManager[Turn]:
        """Take a place in the line: by `timestamp` in seconds where the caller gives one, else as they arrive.

        `key` names the session among those of all API keys, see `SessionCall.key`.

        Connections may overtake each other, so the order of arrival alone would turn a client's frames around.

        Raises:
            Overloaded: too many requests of this session are in flight.
            SessionsUnavailable: the store of the order can't be reached.
        """

    async def close(self) -> None:
        """Release what the order holds."""


class _Line:
    """The in-flight requests of one session, in the order of their turns."""

    def __init__(self) -> None:
        self.turns: list[LocalTurn] = []
        self._served: LocalTurn | None = None

    def call_next(self) -> None:
        """Wake the first request as soon as it waits; never a later one, however long the first takes."""
        if self._served is None and self.turns and self.turns[0].waits:
            self._served = self.turns[0]
            self._served.called.set()

    def leave(self, turn: LocalTurn) -> None:
        self.turns.remove(turn)
        if self._served is turn:
            self._served = None
        self.call_next()


class LocalTurn:
    """See `Turn`."""

    def __init__(self, line: _Line, key: tuple[float, int]) -> None:
        self.key = key
        self.waits = False
        self.called = asyncio.Event()
        self._line = line

    async def come(self, deadline: Deadline) -> None:
        self.waits = True
        self._line.call_next()
        try:
            async with asyncio.timeout(deadline.remaining()):
                await self.called.wait()
        except TimeoutError as error:
            raise DeadlineExceeded("queue") from error


class LocalOrder:
    """Order of the requests that this process has received. `most`: of one session in flight."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: dict[str, _Line] = {}
        self._arrivals = count()

    @asynccontextmanager
    async def join(self, key: str, timestamp: float | None) -> AsyncIterator[LocalTurn]:
        line = self._lines.setdefault(key, _Line())
        if len(line.turns) >= self._most:
            raise Overloaded(
                f"session {key.rpartition('/')[2]} has {self._most} requests in flight", retry_after=1
            )
        turn = LocalTurn(line, (0.0 if timestamp is None else timestamp, next(self._arrivals)))
        bisect.insort(line.turns, turn, key=lambda other: other.key)
        try:
            yield turn
        finally:
            line.leave(turn)
            if not line.turns:
                del self._lines[key]

    async def close(self) -> None:
        pass
