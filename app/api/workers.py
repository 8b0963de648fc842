"""Several processes that serve one port."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from uvicorn.supervisors import Multiprocess


class Workers(Multiprocess):
    """uvicorn's supervisor, which passes an order to stop on at once and stops listening with its workers.

    Each worker drains by itself; the order again shortens that.
    """

    def run(self) -> None:
        self._told = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        super().run()

    def _pass_on(self, _number: int, _frame: FrameType | None) -> None:
        self._told = True
        # Another thread: this one may hold the event's lock.
        threading.Thread(target=self.should_exit.set).start()
        for process in self.processes:
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)
        self._close()

    def terminate_all(self) -> None:
        if not self._told:  # a worker couldn't start
            super().terminate_all()
        self._close()

    def _close(self) -> None:
        for sock in self.sockets:
            sock.close()
