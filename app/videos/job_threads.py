"""Threads that work on jobs, and an end to what they work on: the part that running and fetching share."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

from app.state.jobs import JobIndex


class JobThreads(ABC):
    """`start` once, `close` at the end.

    Args:
        index: of the jobs, once it can be opened; raises VideosUnavailable until then.
        name: of the threads.
        number: of the threads.
    """

    close_s: ClassVar[float | None] = None
    """Longest wait of `close` for the threads, in seconds; None: until they end."""

    def __init__(self, index: Callable[[], JobIndex], name: str, number: int) -> None:
        self._open = index
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._under_way: dict[str, Callable[[], None]] = {}  # what ends the work on a job, by its id
        names = [f"{name}-{one}" for one in range(number)]
        self._threads = [threading.Thread(target=self._work, name=one, daemon=True) for one in names]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End what is under way; the next start continues it."""
        self._closing.set()
        self._wake.set()
        with self._lock:
            for end in self._under_way.values():
                end()
        limit = None if self.close_s is None else time.monotonic() + self.close_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(None if limit is None else max(0.0, limit - time.monotonic()))

    def wake(self) -> None:
        """Look for work now."""
        self._wake.set()

    def stop_deleted(self) -> None:
        """End the work on jobs that somebody has deleted, or that are another worker's now."""
        with self._lock:
            under_way = dict(self._under_way)
        for job_id, end in under_way.items():
            if self._is_lost(job_id):
                end()

    def _is_lost(self, job_id: str) -> bool:
        return self._open().is_deleted(job_id)

    @contextlib.contextmanager
    def _at_work(self, job_id: str, end: Callable[[], None]) -> Iterator[None]:
        """Context manager of the work on a job, which `end` ends."""
        with self._lock:
            self._under_way[job_id] = end
        try:
            if self._closing.is_set():
                end()
            yield
        finally:
            with self._lock:
                del self._under_way[job_id]

    @abstractmethod
    def _work(self) -> None:
        """On each of the threads: one job after another, until `_closing` is set."""
