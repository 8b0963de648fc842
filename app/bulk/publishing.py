"""A thread that writes what has changed, every few seconds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

_log = logging.getLogger(__name__)


class Publishing:
    """Context manager that calls each function every `every_s` seconds and once at the end.

    A function that raises OSError is called again the next time; at the end the error is raised.
    """

    def __init__(self, functions: Sequence[Callable[[], None]], every_s: float) -> None:
        self._functions = functions
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="publishing", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        for function in self._functions:
            function()

    def _repeat(self) -> None:
        while not self._over.wait(self._every_s):
            for function in self._functions:
                try:
                    function()
                except OSError as error:
                    _log.warning("the output can't be written now: %s", error.strerror or error)
