"""A folder as a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from app.media.abandoned import remove_abandoned
from app.media.npz import atomically
from app.videos.stores.base import PARTIAL, ArtifactStore, Stored, checked_name, is_listed

_NO_FILE = (FileNotFoundError, NotADirectoryError)


class FolderStore:
    """See `ArtifactStore`. The folder is made when something is written.

    Published files are on the disk (fsync) before they have their name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def url(self) -> str:
        return str(self.folder)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        with atomically(self._path(name)) as file:
            yield file

    def put(self, name: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        if only_if_absent and self.size(name) is not None:
            return False
        try:
            with atomically(self._path(name), replace=not only_if_absent) as file:
                file.write(data)
        except FileExistsError:
            if only_if_absent and self.size(name) is not None:
                return False
            raise  # a file stands where a folder should
        return True

    def open(self, name: str) -> BinaryIO:
        path = self._path(name)
        try:
            return path.open("rb")
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(error.errno, "no such file", str(path)) from error

    def size(self, name: str) -> int | None:
        path = self._path(name)
        try:
            return path.stat().st_size if path.is_file() else None
        except _NO_FILE:
            return None

    def list(self, prefix: str = "") -> Iterator[Stored]:
        start = prefix.rstrip("/")
        yield from _files(self.folder, checked_name(start) if start else "")

    def delete(self, name: str) -> None:
        path = self._path(name)
        with suppress(*_NO_FILE, IsADirectoryError):
            path.unlink()

    def within(self, prefix: str) -> FolderStore:
        return FolderStore(self.folder / checked_name(prefix.rstrip("/")))

    def _path(self, name: str) -> Path:
        return self.folder / checked_name(name)


def remove_unfinished(store: ArtifactStore) -> None:
    """Remove the files that killed processes were writing into a folder; a bucket has none of them."""
    if isinstance(store, FolderStore):
        remove_abandoned(store.folder)


def _files(root: Path, below: str) -> Iterator[Stored]:
    """Yield the files of a folder and of all below it; links to folders are not followed."""
    try:
        entries = os.scandir(root / below)
    except _NO_FILE:  # nothing was written yet, or it was removed meanwhile
        return
    with entries:
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name != PARTIAL:
                    yield from _files(root, name)
            elif is_listed(name):
                with suppress(*_NO_FILE):
                    if entry.is_file():
                        yield Stored(name, entry.stat().st_size)
