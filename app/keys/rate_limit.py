"""Token buckets by name, of one process or of all workers of a replica.

Those of all replicas are in `app.state.redis.buckets`.

A bucket is one number, the moment at which it will be full again (the generic cell rate algorithm, ITU-T I.371):
nothing has to be refilled, and what workers share is 8 bytes.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

from app.keys.access import Rate

_MOMENT = struct.Struct("<d")
# Sums of moments are rounded, by less than that: a clock of years has 1e-8 s between two numbers.
_ROUNDING_S = 1e-7


def after(full_at: float, rate: Rate, now: float) -> tuple[float, float]:
    """Take one request; return when the bucket is full again, and 0 or the seconds until a request is available.

    Args:
        full_at: as it was; 0 for a bucket that nobody has used.
        rate: of the bucket.
        now: in seconds, of the same clock.
    """
    span = rate.burst / rate.per_s  # seconds from empty to full
    if not full_at <= now + span + _ROUNDING_S:  # of another boot, or from before the rate was changed
        full_at = now
    full_then = max(full_at, now) + 1 / rate.per_s
    wait = full_then - now - span
    return (full_then, 0.0) if wait <= _ROUNDING_S else (full_at, wait)


class OwnBuckets:
    """In this process alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}

    async def take(self, name: str, rate: Rate) -> float:
        self._full_at[name], wait = after(self._full_at.get(name, 0.0), rate, self._clock())
        return wait

    async def close(self) -> None:
        pass


class SharedBuckets:
    """In files of a folder: a limit holds for all workers together, whichever of them a connection belongs to.

    The monotonic clock is the same for all processes of a host. A lock is held for two system calls of eight bytes,
    and goes with the process that holds it.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._files: dict[str, int] = {}

    async def take(self, name: str, rate: Rate) -> float:
        file = self._file(name)
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            raw = os.pread(file, _MOMENT.size, 0)
            full_at = _MOMENT.unpack(raw)[0] if len(raw) == _MOMENT.size else 0.0
            full_at, wait = after(full_at, rate, self._clock())
            os.pwrite(file, _MOMENT.pack(full_at), 0)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
        return wait

    async def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def _file(self, name: str) -> int:
        if name not in self._files:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._files[name] = os.open(self._folder / f"{name}.rate", flags, 0o600)
        return self._files[name]
