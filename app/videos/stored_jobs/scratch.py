"""A local folder of this process, which the next process removes if this one dies."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import uuid
from pathlib import Path
from typing import IO


class Scratch:
    """`folder` is there until `close`. What processes that died left beside it is removed first.

    Args:
        below: holds the folders of all processes, and their locks.

    Raises:
        OSError: it can't be made.
    """

    def __init__(self, below: Path) -> None:
        below.mkdir(parents=True, exist_ok=True)
        self._path, self._lock = _locked(below)
        self.folder = self._path.with_suffix("")
        self.folder.mkdir()
        for path in below.glob("*.lock"):
            if path != self._path:
                _remove(path)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._path.unlink(missing_ok=True)
        self._lock.close()


def _remove(path: Path) -> None:
    """Remove a folder and its lock unless a process holds that."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        path.unlink(missing_ok=True)


def _locked(below: Path) -> tuple[Path, IO[bytes]]:
    """Return a new file, locked."""
    while True:
        path = below / f"{uuid.uuid4().hex}.lock"
        file = path.open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():  # nobody removed it before it was locked
            return path, file
        file.close()
