"""Workers of one host that share a folder.

A worker holds a lock on a file of its own. The kernel releases the lock when the process dies, however it dies, so the
rows of a dead worker are free at once and without a clock.
"""

from __future__ import annotations

import contextlib
import fcntl
import uuid
from pathlib import Path
from typing import IO

from app.errors import VideosUnavailable
from app.state.database import Connection
from app.state.host_mark import HostMark
from app.state.sqlite_file import RETRY_S


class LockedOwners:
    """See `Owners`.

    Args:
        folder: of the workers' files; made if it isn't there.
        mark: of this host, for which the workers hold it.

    Raises:
        OSError: it can't be written.
        VideosUnavailable: another host uses it.
    """

    def __init__(self, folder: Path, mark: HostMark) -> None:
        self._folder = folder
        self._mark = mark
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self._lock = _locked_file(folder)
        try:
            _take(mark)
        except BaseException:
            self.close()
            raise
        mark.hold()

    def close(self) -> None:
        """Release what this worker owns."""
        self._mark.close(last=self.alone())
        (self._folder / self.name).unlink(missing_ok=True)
        self._lock.close()

    def alone(self) -> bool:
        """No other worker uses the folder now."""
        others = [path.name for path in self._folder.iterdir() if path.name != self.name]
        return all(self._is_dead(other) for other in others)

    def is_dead(self, _connection: Connection, owner: str | None) -> bool:
        return owner is None or self._is_dead(owner)

    def _is_dead(self, owner: str) -> bool:
        """True if no process holds the owner's lock."""
        if owner == self.name:
            return False
        path = self._folder / owner
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return True
        except OSError:  # held, or it can't be looked at now
            return False
        return True


def _take(mark: HostMark) -> None:
    with contextlib.suppress(OSError):  # a full disk: the mark is written once there is room
        if not mark.take():
            raise VideosUnavailable(mark.in_use, retry_after=RETRY_S)


def _locked_file(folder: Path) -> tuple[str, IO[bytes]]:
    """A new file of this worker, locked; its name says whose it is."""
    while True:
        name = uuid.uuid4().hex
        file = (folder / name).open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if (folder / name).exists():  # still there: no worker removed it before it was locked
            return name, file
        file.close()
