"""The end of a process that is told to stop: it is bounded, a second word shortens it, and nothing outlives it.

The server itself lets requests under way finish, and then closes the engine. This is for when that takes too long (a
Triton that hangs, a decoder that does): what other processes would keep for us is given back, and the process ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from types import FrameType

_log = logging.getLogger("gateway")
_CLEANING_S = (
    1.5  # after the requests' time is over; Docker kills after 10 s, and gives 8 of them to requests
)
_ABANDON_S = 2.0
_ENDED_HARD = 1


class Ending:
    """Stands between a signal and who handles it.

    Args:
        limit_s: from the first signal to the hard end.
        abandon: gives back what would outlive the process, in about a second, whatever state everything is in.
    """

    def __init__(self, limit_s: float, abandon: Callable[[], None]) -> None:
        self._limit_s = limit_s
        self._abandon = abandon
        self._told = False

    def watch(self, number: signal.Signals) -> None:
        """Handle this signal, and then who handled it before; a signal that ends the process anyway is left alone."""
        before = signal.getsignal(number)
        if not callable(before) or before is signal.default_int_handler:
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if self._told:
                self._later(0.0, "told twice to stop")
                return
            self._told = True
            self._later(self._limit_s, f"not at an end after {self._limit_s:.1f} s")
            before(number, frame)

        signal.signal(number, handle)

    def _later(self, seconds: float, why: str) -> None:
        timer = threading.Timer(seconds, self._end, (why,))
        timer.daemon = True  # an end that comes before it is the better one
        timer.start()

    def _end(self, why: str) -> None:
        _log.error("ending at once, requests and jobs are cut off: %s", why)
        thread = threading.Thread(target=self._abandon, daemon=True)
        thread.start()
        thread.join(_ABANDON_S)
        os._exit(_ENDED_HARD)


def bound(requests_s: float, abandon: Callable[[], None]) -> None:
    """From now on a stop takes at most the requests' time and a little; a second signal ends it at once.

    Does nothing outside the main thread, where no signals arrive.
    """
    if threading.current_thread() is threading.main_thread():
        ending = Ending(requests_s + _CLEANING_S, abandon)
        for number in (signal.SIGTERM, signal.SIGINT):
            ending.watch(number)


def cleanly() -> None:
    """SIGTERM ends this process with code 0: while it starts at once, later when the server has finished."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)


def with_parent() -> None:
    """A worker whose parent dies stops too: it would hold the port, and nobody would ever start it anew."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        wait([parent.sentinel])
        _log.error("the parent process is gone; stopping")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, name="parent", daemon=True).start()
