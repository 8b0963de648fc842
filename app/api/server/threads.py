"""Threads that carry out calls: a queue in C between them and the event loop, and no future per call.

`concurrent.futures` creates a future with two locks for every call, takes a semaphore and notifies waiters that don't
exist: about thirty Python calls. Here the caller passes its own callback.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

_log = logging.getLogger(__name__)


class Threads:
    """At most `most` threads, started when first needed. `submit` is for one thread, that of an event loop."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._submitted = 0
        self._done: list[int] = []  # calls of each thread, which alone writes its own
        self._threads: list[threading.Thread] = []

    def submit(self, call: Callable[[], object], /) -> None:
        """Have `call` carried out; it must not raise."""
        self._submitted += 1
        self._queue.put(call)
        if len(self._threads) < self._most and self._submitted - sum(self._done) > len(self._threads):
            self._start()

    def close(self) -> None:
        """Drop what waits, and return when what runs has ended."""
        try:
            while True:
                self._queue.get_nowait()
        except Empty:
            pass
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        number = len(self._threads)
        self._done.append(0)
        thread = threading.Thread(
            target=self._work, args=(number,), name=f"{self._name}_{number}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _work(self, number: int) -> None:
        while (call := self._queue.get()) is not None:
            try:
                call()
            except Exception:  # noqa: BLE001  # the thread has others to serve
                _log.exception("a call failed that must not")
            del call  # the request that it belongs to is over
            self._done[number] += 1
