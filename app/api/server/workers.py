"""Several processes that serve one port."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType

from uvicorn.supervisors import Multiprocess


class Workers(Multiprocess):
    """uvicorn's supervisor, which passes an order to stop on at once and stops listening with its workers.

    Each worker drains by itself; the order again shortens that.
    """

    def init_processes(self) -> None:
        self._told: set[int] = set()  # process ids
        super().init_processes()  # an order that comes meanwhile waits in the queue
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        if {signal.SIGTERM, signal.SIGINT}.intersection(self.signal_queue):
            self._pass_on(signal.SIGTERM, None)

    def _pass_on(self, _number: int, _frame: FrameType | None) -> None:
        # Another thread: this one may hold the event's lock.
        threading.Thread(target=self.should_exit.set).start()
        for process in self.processes:
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)
                self._told.add(process.pid)
            with contextlib.suppress(OSError):  # closed
                process.child_conn.send(False)  # ends a health check that a starting worker wouldn't answer
        self._close()

    def terminate_all(self) -> None:
        for process in self.processes:
            if process.pid not in self._told:
                process.terminate()
        self._close()

    def _close(self) -> None:
        for sock in self.sockets:
            sock.close()
