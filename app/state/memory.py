"""Sessions of this process alone: bounded by idle time and by number."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from app.state.base import Snapshot


@dataclass(frozen=True, slots=True)
class _Entry:
    snapshot: Snapshot
    saved_at: float


class MemoryStore:
    """Store of at most `most` sessions, each until it is idle for `ttl_s` seconds; the least recently used goes
    first.

    `on_evicted` hears of every session that ends by itself: `ttl` or `lru`. `clock` is in seconds and never goes back.
    """

    name = "memory of this process"

    def __init__(
        self,
        ttl_s: float,
        most: int,
        on_evicted: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl_s = ttl_s
        self._most = most
        self._on_evicted = on_evicted
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = count(1)
        # The longest idle first. All live equally long, so this is the order in which they end, too.
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def load(self, session_id: str) -> Snapshot | None:
        with self._lock:
            self._expire()
            entry = self._entries.get(session_id)
            return None if entry is None else entry.snapshot

    def save(self, session_id: str, value: bytes, expected: bytes | None) -> bool:
        with self._lock:
            self._expire()
            entry = self._entries.get(session_id)
            if (None if entry is None else entry.snapshot.token) != expected:
                return False
            token = next(self._tokens).to_bytes(8, "big")
            self._entries[session_id] = _Entry(Snapshot(token, value), self._clock())
            self._entries.move_to_end(session_id)
            while len(self._entries) > self._most:
                self._evict("lru")
            return True

    def delete(self, session_id: str) -> bool:
        with self._lock:
            self._expire()
            return self._entries.pop(session_id, None) is not None

    def live(self) -> int:
        """Number of sessions at the moment."""
        with self._lock:
            self._expire()
            return len(self._entries)

    def close(self) -> None:
        with self._lock:
            self._entries.clear()

    def _expire(self) -> None:
        limit = self._clock() - self._ttl_s
        while self._entries and next(iter(self._entries.values())).saved_at <= limit:
            self._evict("ttl")

    def _evict(self, reason: str) -> None:
        self._entries.popitem(last=False)
        self._on_evicted(reason)
