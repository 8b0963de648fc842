"""Waiting for an event, never for a time that a busy machine can miss."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psutil

# More than anything takes that is going to happen, on a machine that is twenty times slower or stops for seconds. A
# caller who must not run out of time has so much of it; what ends "at once" ends in half of it.
PATIENCE_S = 120.0


def eventually(true: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Return once it is true."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it didn't happen in time"
        time.sleep(0.005)


async def eventually_on_loop(true: Callable[[], bool]) -> None:
    """Return once it is true; meanwhile the loop goes on."""
    limit = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < limit, "it didn't happen in time"
        await asyncio.sleep(0.001)


def ended(process: psutil.Process) -> bool:
    """True if the process is over; an orphan is while it waits to be reaped."""
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # between the two questions
        return True
