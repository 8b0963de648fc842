"""The worker's side of the local executor: what runs in a process of the pool."""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import signal
import threading
from pathlib import Path

from app.bulk.entries import Entry
from app.bulk.executors.base import MakeWorker, Worker
from app.bulk.outcomes import Outcome

_LOOK_S = 0.2


class _Process:
    """This process: its worker, once there is one, and a request to stop."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self._stopped = False

    def made(self, made_of: bytes) -> Worker:
        if self.worker is None:
            make: MakeWorker = pickle.loads(made_of)  # noqa: S301  # from the process that started this one
            self.worker = make()
            if self._stopped:
                self.worker.stop()
        return self.worker

    def stop(self) -> None:
        self._stopped = True
        if self.worker is not None:
            self.worker.stop()


@functools.cache  # a pool calls functions; the models have to live as long as the process
def _this() -> _Process:
    return _Process()


def begin(parent: int, stop_file: str) -> None:
    """Prepare the process: Ctrl-C is its parent's to handle, and it ends when its parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch = threading.Thread(target=_watch, args=(parent, Path(stop_file)), name="parent", daemon=True)
    watch.start()


def load(module: str) -> None:
    """Import a module that the worker is going to need."""
    importlib.import_module(module)


def analyse(made_of: bytes, entry: Entry, attempt: int) -> Outcome:
    """Analyse one video with this process's worker, which `made_of`, a pickled `MakeWorker`, makes."""
    return _this().made(made_of).analyse(entry, attempt)


def close() -> None:
    """Close the worker, if there is one."""
    worker = _this().worker
    if worker is not None:
        worker.close()


def _watch(parent: int, stop_file: Path) -> None:
    """Stop the worker once the file exists, and end the process once its parent is gone.

    A file and a process id are safe to ask whatever state a killed process has left locks and pipes in.
    """
    pause, stopped = threading.Event(), False
    while not pause.wait(_LOOK_S):
        if os.getppid() != parent:
            os._exit(1)
        if not stopped and stop_file.exists():
            stopped = True
            _this().stop()
