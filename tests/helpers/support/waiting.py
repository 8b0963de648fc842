"""Waiting for an event, never for a time that a busy machine can miss."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return once it is true."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it didn't happen in time"
        time.sleep(0.005)
