"""One process at a time writes the tables of an output, on whatever machine it runs.

A lock is a document `run/tables/lock-<number>.json`: the highest number counts, and a conditional put gives each number
to one process. The holder puts off its end every few seconds; a process that was killed no longer does, and another one
takes the next number then. Before a part appears, the holder looks if somebody has taken a higher number.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from app.bulk.layout import TABLES_LOCKS
from app.videos.stores.base import ArtifactStore

_NAME = re.compile(r"lock-(\d{6,})\.json")
_HELD_S = 90.0  # from now; longer than a store takes to answer
_AGAIN_S = 20.0


class Busy(OSError):
    """Another process writes the tables; `strerror` says which."""

    def __init__(self, words: str) -> None:
        super().__init__(errno.EBUSY, words)


class TablesLock:
    """Holds the lock from the beginning of the block to its end."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._owner = {"id": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid()}
        self._number = 0
        self._over = threading.Event()

    @contextlib.contextmanager
    def held(self) -> Iterator[TablesLock]:
        """Context manager that holds the lock.

        Raises:
            Busy: another process holds it.
            OSError: the store can't be read or written.
        """
        self._take()
        again = threading.Thread(target=self._put_off, name="tables-lock", daemon=True)
        again.start()
        try:
            yield self
        finally:
            self._over.set()
            again.join()
            with contextlib.suppress(OSError):  # it ends by itself then
                self._write(until=0.0)

    def check(self) -> None:
        """Check that the lock is still held.

        Raises:
            Busy: another process has taken it, because this one was silent for too long.
        """
        newest = max(self._numbers(), default=0)
        if newest != self._number:
            raise Busy(
                "another process has taken over the tables, because this one did not go on for too long"
            )

    def _take(self) -> None:
        before = max(self._numbers(), default=0)
        holder = self._read(before) if before else None
        if holder is not None and _until(holder) > time.time():
            raise Busy(f"process {holder.get('pid')} on {holder.get('host')} writes the tables now")
        self._number = before + 1
        if not self._write(until=time.time() + _HELD_S, fresh=True):
            raise Busy("another process writes the tables now")
        self.check()
        for number in self._numbers():
            if number < self._number:
                self._store.delete(self._name(number))

    def _put_off(self) -> None:
        while not self._over.wait(_AGAIN_S):
            with contextlib.suppress(OSError):  # the next time may do
                self._write(until=time.time() + _HELD_S)

    def _write(self, until: float, *, fresh: bool = False) -> bool:
        document = json.dumps({**self._owner, "until": until}).encode()
        return self._store.put(self._name(self._number), document, only_if_absent=fresh)

    def _read(self, number: int) -> dict[str, Any] | None:
        """Return a lock's document; None if it is gone or damaged: it holds nobody off then."""
        try:
            with self._store.open(self._name(number)) as file:
                document = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    def _numbers(self) -> list[int]:
        names = (stored.name.rpartition("/")[2] for stored in self._store.list(TABLES_LOCKS))
        return [int(found[1]) for name in names if (found := _NAME.fullmatch(name))]

    def _name(self, number: int) -> str:
        return f"{TABLES_LOCKS}/lock-{number:06d}.json"


def _until(document: dict[str, Any]) -> float:
    until = document.get("until")
    return float(until) if isinstance(until, int | float) else 0.0
