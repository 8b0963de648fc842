"""Executor over processes of this machine, which live as long as the run.

Each worker is a pool of its own with one process (loky). A process that dies breaks its pool alone, so it is known
which video it died with, and the other videos aren't disturbed.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

from app.bulk.attempts import Attempts
from app.bulk.entries import Entry
from app.bulk.executors import local_worker
from app.bulk.executors.base import MakeWorker, Stopped, set_aside
from app.bulk.executors.scratch import RunFolder
from app.bulk.outcomes import Outcome

_log = logging.getLogger(__name__)
_CLOSE_S = 10.0
# loky starts a worker again whose memory grows by 300 MB after its first call; loading models takes more than that.
_ENVIRONMENT = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e15"}
_EXIT_CODE = re.compile(r"\{([A-Z]+\(-?\d+\)|EXIT\(\d+\))\}")


@dataclass(slots=True, eq=False)
class _Slot:
    """One worker process; another one takes its place if it dies."""

    stop_file: Path
    pool: ProcessPoolExecutor | None = None

    def started(self) -> ProcessPoolExecutor:
        if self.pool is None:
            arguments = (os.getpid(), str(self.stop_file))
            self.pool = ProcessPoolExecutor(
                1, initializer=local_worker.begin, initargs=arguments, env=_ENVIRONMENT
            )
        return self.pool

    def broken(self) -> None:
        """Forget a pool whose process has died."""
        if self.pool is not None:
            self.pool.shutdown(wait=False, kill_workers=True)
        self.pool = None

    def close(self) -> None:
        if self.pool is None:
            return
        with suppress(BrokenProcessPool, TimeoutError, RuntimeError):
            self.pool.submit(local_worker.close).result(timeout=_CLOSE_S)
        self.pool.shutdown(wait=True, kill_workers=True)
        self.pool = None


@dataclass(frozen=True, slots=True)
class _Work:
    """The video that a worker has now."""

    slot: _Slot
    entry: Entry
    attempt: int


class LocalExecutor:
    """See `Executor`. At most `workers` videos at once, each in a process of its own; close it at the end."""

    def __init__(self, workers: int) -> None:
        self._folder = RunFolder()
        self._slots = [_Slot(self._folder.stop_file) for _ in range(workers)]
        self._stopped = False
        self._again: deque[Entry] = deque()

    def prepare(self, module: str) -> None:
        """Start the processes now and have them import a module, while the caller prepares the run."""
        for slot in self._slots:
            slot.started().submit(local_worker.load, module)

    def run(self, entries: Iterable[Entry], make: MakeWorker, attempts: Attempts) -> Iterator[Outcome]:
        """See `Executor.run`."""
        made_of, source = pickle.dumps(make), iter(entries)
        free = deque(self._slots)
        running: dict[Future[Outcome], _Work] = {}
        while True:
            while free and (entry := self._next(source)) is not None:
                work = _Work(free.popleft(), entry, attempts.begin(entry.name))
                running[self._submitted(work, made_of)] = work
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                work = running.pop(future)
                free.append(work.slot)
                outcome = self._result(future, work, attempts)
                if outcome is not None:
                    yield outcome

    def stop(self) -> None:
        """See `Executor.stop`."""
        self._stopped = True
        with suppress(OSError):  # closed meanwhile
            self._folder.stop_file.touch()

    def close(self) -> None:
        """See `Executor.close`. A worker that does not come to its end is killed."""
        self.stop()
        for slot in self._slots:
            slot.close()
        self._folder.remove()

    def _next(self, source: Iterator[Entry]) -> Entry | None:
        if self._stopped:
            return None
        return self._again.popleft() if self._again else next(source, None)

    def _submitted(self, work: _Work, made_of: bytes) -> Future[Outcome]:
        arguments = (local_worker.analyse, made_of, work.entry, work.attempt)
        try:
            future: Future[Outcome] = work.slot.started().submit(*arguments)
        except BrokenProcessPool:  # the process died while it had nothing to do
            work.slot.broken()
            future = work.slot.started().submit(*arguments)
        return future

    def _result(self, future: Future[Outcome], work: _Work, attempts: Attempts) -> Outcome | None:
        """Return the outcome; None if the video was stopped or is tried again."""
        try:
            return future.result()
        except Stopped:
            return None
        except BrokenProcessPool as error:
            work.slot.broken()
            if self._stopped:  # Ctrl-C reaches a process that has only begun
                return None
            ended = _ended(error)
            _log.warning("%s: the worker died (%s), attempt %d", work.entry.name, ended, work.attempt)
            if attempts.killed(work.entry.name):
                return set_aside(work.entry, work.attempt, ended)
            self._again.append(work.entry)
            return None


def _ended(error: BrokenProcessPool) -> str:
    """Return the end of a worker's process in a word, such as SIGKILL(-9)."""
    found = _EXIT_CODE.search(str(error))
    return found[1] if found else "its process ended"
