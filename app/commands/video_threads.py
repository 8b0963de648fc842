"""Videos on several threads: their outcomes in the order of the list, and one way to stop all of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

from app.videos.analysis import Cancelled

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stop:
    """A request to stop, and the work that it cancels. It takes no lock, so that a signal handler may request it."""

    def __init__(self) -> None:
        self.requested = False
        self._interrupted = False
        self._cancels: dict[int, Callable[[], None]] = {}

    def request(self) -> None:
        """Cancel the work that runs; `check` raises from now on. From any thread."""
        self.requested = True
        for cancel in list(self._cancels.values()):
            cancel()

    def check(self) -> None:
        """Raise Cancelled once a stop is requested."""
        if self.requested:
            raise Cancelled

    @contextmanager
    def cancelling(self, cancel: Callable[[], None]) -> Iterator[None]:
        """Context manager of work that `cancel`, called from any thread, ends.

        Raises:
            Cancelled: a stop was requested before.
        """
        self._cancels[id(cancel)] = cancel
        try:
            self.check()
            yield
        finally:
            del self._cancels[id(cancel)]

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Context manager under which SIGINT and SIGTERM request a stop. On the main thread.

        A second SIGINT ends the process: a model's run that hangs can't be cancelled. A signal that the process ignores
        (SIGINT in the background of a script) stays ignored.
        """

        def told(number: int, _: FrameType | None) -> None:
            if number == signal.SIGINT and self._interrupted:
                os._exit(128 + number)
            self._interrupted = self._interrupted or number == signal.SIGINT
            self.request()

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for number, handler in before.items():
                if handler is not signal.SIG_IGN:
                    signal.signal(number, told)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_in_order(
    items: Sequence[Item],
    key: Callable[[Item], str],
    run: Callable[[Item], Result],
    tell: Callable[[Result], None],
    threads: int,
    stop: Stop,
) -> None:
    """Run every item on one of the threads, and tell each result on this one, in the order of the items.

    Items of one key run one after another. An item whose run is cancelled has no result. After any other error of
    `run` or `tell`, what runs is stopped and waited for.

    Raises:
        Exception: the first error of `run` or `tell`.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="video") as pool:
        latest: dict[str, Future[Result]] = {}
        try:
            futures = []
            for item in items:
                future = pool.submit(_after, latest.get(key(item)), run, item)
                latest[key(item)] = future
                futures.append(future)
            for future in futures:
                with suppress(Cancelled):
                    tell(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop.request()
            raise


def _after(before: Future[Result] | None, run: Callable[[Item], Result], item: Item) -> Result:
    """Run the item once the one before it is over. That one was begun earlier, so no thread waits for itself."""
    if before is not None:
        wait([before])
    return run(item)
