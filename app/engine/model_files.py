"""Cheap listing of a model repository, enough to detect that a model's files have changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from routing.versions import served_folder

# (name, inode, nanoseconds of the last change, bytes) of every file of a model; none: it isn't there.
Stamp = tuple[tuple[str, int, int, int], ...]


def stamps(repository: Path, models: Iterable[str]) -> Mapping[str, Stamp]:
    """The stamp of each model; nothing is opened."""
    return {name: stamp(repository / name) for name in models}


def stamp(folder: Path) -> Stamp:
    """Return a stamp of config.pbtxt and the files of the version that serves. Hidden files are work in progress and
    do not count.
    """
    found = []
    version = served_folder(folder)
    for part in (folder, version):
        try:
            with os.scandir(part) as entries:
                for entry in entries:
                    wanted = part is version or entry.name == "config.pbtxt"
                    if wanted and not entry.name.startswith(".") and entry.is_file():
                        stat = entry.stat()
                        path = f"{part.name}/{entry.name}"
                        found.append((path, stat.st_ino, stat.st_mtime_ns, stat.st_size))
        except OSError:  # it isn't there, or went while it was looked at
            continue
    return tuple(sorted(found))
