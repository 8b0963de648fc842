"""The end of a process that is told to stop: a drain, then the requests under way, then a limit that holds.

The server itself lets requests under way finish, and then closes the engine. This module limits that time, for
example when Triton or a decoder hangs: it releases what other processes hold for this one, and ends the process.
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

from app.process.drain import Drain

_log = logging.getLogger("gateway")
_CLEANING_S = (
    1.5  # after the requests' time is over; Docker kills after 10 s, and gives 8 of them to requests
)
_ABANDON_S = 2.0
_ENDED_HARD = 1


class Shutdown:
    """Wrapper around the handlers of the stop signals.

    The first signal begins the drain, and reaches the handler when that is over. A second one ends the drain, or else
    the process.

    Args:
        limit_s: from the end of the drain to the hard end.
        abandon: gives back what would outlive the process, in about a second, whatever state everything is in.
        drain: before the server stops.
    """

    def __init__(self, limit_s: float, abandon: Callable[[], None], drain: Drain) -> None:
        self._limit_s = limit_s
        self._abandon = abandon
        self._drain = drain

    def watch(self, number: signal.Signals) -> None:
        """Handle this signal before its handler does; a signal that ends the process anyway is left alone."""
        before = signal.getsignal(number)
        if not callable(before) or before is signal.default_int_handler:
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if not self._drain.begun:
                self._begin(lambda: before(number, frame))
            elif not self._drain.ended:
                self._drain.cut()
            else:
                self._later(0.0, "told twice to stop")

        signal.signal(number, handle)

    def _begin(self, stop: Callable[[], object]) -> None:
        seconds = self._drain.begin()
        if not seconds:
            self._stop(stop)
            return

        def follow() -> None:
            _log.info("draining for at most %.1f s: /readyz is red, requests are still taken", seconds)
            self._drain.wait()
            self._stop(stop)

        threading.Thread(target=follow, name="drain", daemon=True).start()

    def _stop(self, stop: Callable[[], object]) -> None:
        self._later(self._limit_s, f"not at an end after {self._limit_s:.1f} s")
        stop()

    def _later(self, seconds: float, why: str) -> None:
        timer = threading.Timer(seconds, self._end, (why,))
        timer.daemon = True  # it must not delay an earlier, regular end
        timer.start()

    def _end(self, why: str) -> None:
        _log.error("ending at once, requests and jobs are cut off: %s", why)
        thread = threading.Thread(target=self._abandon, daemon=True)
        thread.start()
        thread.join(_ABANDON_S)
        os._exit(_ENDED_HARD)


def bound(requests_s: float, abandon: Callable[[], None], drain: Drain) -> None:
    """Limit every stop from now on to the time of the drain and the requests, and a little more; a second signal
    shortens it.

    Does nothing outside the main thread, where no signals arrive. A worker is stopped by its parent alone: Ctrl-C
    reaches both.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    stop = Shutdown(requests_s + _CLEANING_S, abandon, drain)
    stop.watch(signal.SIGTERM)
    if multiprocessing.parent_process() is None:
        stop.watch(signal.SIGINT)
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def cleanly() -> None:
    """SIGTERM ends this process with code 0: while it starts at once, later when the server has finished."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)


def with_parent() -> None:
    """Stop a worker when its parent dies; otherwise it would keep the port without being supervised."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        wait([parent.sentinel])
        _log.error("the parent process is gone; stopping")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, name="parent", daemon=True).start()
