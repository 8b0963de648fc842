"""The folder of a run on this machine. Folders of runs that were killed are removed by a later run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

_PREFIX = "gateway-bulk-"
_OLD_S = 60.0  # a younger folder may be one that its run has not locked yet
_STOP = "stop"


class RunFolder:
    """A temporary folder, locked as long as the process lives; `stop_file` is written to tell the workers to stop."""

    def __init__(self) -> None:
        _remove_left_over(Path(tempfile.gettempdir()))
        self._path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self.stop_file = self._path / _STOP
        self._locked: int | None = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # without locks no other run removes it, either
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Remove the folder; again does nothing."""
        shutil.rmtree(self._path, ignore_errors=True)
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None


def _remove_left_over(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, in use, or gone meanwhile
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a folder of this user that is old, holds nothing but the stop file, and is locked by no process.

    Raises:
        OSError: it is locked, or is no folder that can be opened and removed.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(folder)
        if found.st_uid != os.getuid() or time.time() - found.st_mtime < _OLD_S:
            return
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if all(file.name == _STOP for file in path.iterdir()):
            (path / _STOP).unlink(missing_ok=True)
            path.rmdir()
    finally:
        os.close(folder)
