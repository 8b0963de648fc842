"""Pieces of an answer on their way from the thread that makes them to the event loop that sends them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

# What is made sooner after the last piece goes out with the next: a hop and a packet for each would cost more than
# many a frame itself. Films last 30 to 40 ms a frame, so who watches one live sees nothing of it.
PAUSE_S = 0.01


class ChunkQueue:
    """At most `most` pieces wait; who makes more waits too. Several are taken as one, as many as there are."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._most = most
        self._pieces: list[bytes] = []
        self._over = self._closed = False
        self._changed = threading.Condition()
        self._there = asyncio.Event()
        self._taken_at = float("-inf")

    def fill(self, pieces: Iterator[bytes]) -> None:
        """On a thread: hand all of them over, until nobody takes them any more; an error ends it."""
        try:
            for piece in pieces:
                if not self._put(piece):
                    return
        finally:
            with self._changed:
                self._over = True
                self._wake()

    def _put(self, piece: bytes) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._pieces) < self._most)
            if self._closed:
                return False
            self._pieces.append(piece)
            if len(self._pieces) == 1:
                self._wake()
        return True

    def _wake(self) -> None:
        if not self._closed:
            self._loop.call_soon_threadsafe(self._there.set)

    async def take(self) -> bytes:
        """On the loop: what has been made; empty once there will be no more."""
        await self._there.wait()
        early = self._taken_at + PAUSE_S - self._loop.time()
        if early > 0 and not self._over:
            await asyncio.sleep(early)
        self._taken_at = self._loop.time()
        with self._changed:
            pieces, self._pieces = self._pieces, []
            if not self._over:
                self._there.clear()
            self._changed.notify()
        return b"".join(pieces)

    def close(self) -> None:
        """On the loop: nobody takes any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
