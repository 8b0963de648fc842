"""Pieces of an answer on their way from the thread that makes them to the event loop that sends them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

# Pieces that follow sooner are sent together: a hop and a packet for each could cost more than the frame itself. A
# video has a frame every 30 to 40 ms, so the delay isn't visible.
PAUSE_S = 0.01


class ChunkQueue:
    """Queue of at most `most` pieces; a full queue blocks the producer. All waiting pieces are taken at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._most = most
        self._pieces: list[bytes] = []
        self._over = self._closed = False
        self._changed = threading.Condition()
        self._there = asyncio.Event()
        self._taken_at = float("-inf")

    def fill(self, pieces: Iterator[bytes]) -> None:
        """Put all pieces into the queue, on a thread, until the consumer stops; an error ends the queue."""
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
        """Return the waiting pieces, on the event loop; empty after the last one."""
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
        """Stop consuming, on the event loop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
