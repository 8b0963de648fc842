"""Temporary files beside artefacts: locked while they are written, so that those of killed processes can be told."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_SUFFIX = ".new"
_LONGEST = 64  # characters of a name in the temporary one, which must not become too long
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.new", re.DOTALL)
_OLD_S = 60.0  # a writer of another host, whose lock may not be seen here, has written since


def temporary_file(path: Path) -> tuple[int, Path]:
    """Make a temporary file beside a file, locked until its descriptor is closed; return its descriptor and path.

    Raises:
        OSError: it can't be made.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:_LONGEST]}.", suffix=_SUFFIX)
    with contextlib.suppress(OSError):  # a file system without locks: the age protects it
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor, Path(name)


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files below a folder that nobody writes; what can't be removed stays."""
    before = time.time() - _OLD_S
    for path in _temporary_files(folder):
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime < before and _is_free(path):
                path.unlink()


def _temporary_files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if _TEMPORARY.fullmatch(name))


def _is_free(path: Path) -> bool:
    """Return True if nobody holds the lock of a file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
