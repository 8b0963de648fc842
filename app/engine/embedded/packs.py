"""Weights of cached graphs: files named by the SHA-256 of their bytes, mapped once per process.

Graphs that have tensors in common refer to one file, so the sizes of one architecture have their weights once on disk
and once in memory, and so have the workers of one host.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SUFFIX = ".bin"
_ALIGNMENT = 64  # bytes: a cache line, and the widest vector of a processor


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of a tensor within a pack."""

    pack: str
    offset: int
    length: int


class Pack:
    """One file of tensors, mapped into this process and shown to be whole."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hashlib.sha256(self._map).hexdigest() != path.stem:
            raise ValueError(f"{path.name}: its bytes aren't those that it is named for")
        self.forget_pages()

    def tensor(self, place: Place, dtype: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
        """A read-only view; it keeps the mapping alive.

        Raises:
            ValueError: there aren't so many bytes.
        """
        flat = np.frombuffer(self._map, np.uint8, place.length, place.offset)
        return flat.view(dtype).reshape(shape)

    def forget_pages(self) -> None:
        """Let the kernel take pages back from this process; those that are read again come from its cache."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class Packs:
    """The packs in a folder.

    Args:
        folder: where they lie; need not exist for reading.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: weakref.WeakValueDictionary[str, Pack] = weakref.WeakValueDictionary()

    def open(self, name: str) -> Pack:
        """The pack of this name; the same one for all that use it.

        Raises:
            OSError, ValueError: it isn't there, or isn't whole; then it is removed.
        """
        pack = self._open.get(name)
        if pack is None:
            try:
                pack = Pack(self.path(name))
            except ValueError:
                self.path(name).unlink(missing_ok=True)
                raise
            self._open[name] = pack
        return pack

    def write(self, tensors: Iterable[memoryview]) -> list[Place]:
        """Write one pack of these tensors; their places in the same order.

        Raises:
            OSError: it can't be written.
        """
        places: list[tuple[int, int]] = []
        digest = hashlib.sha256()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", dir=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for tensor in tensors:
                    padding = bytes(-file.tell() % _ALIGNMENT)
                    file.write(padding)
                    digest.update(padding)
                    places.append((file.tell(), tensor.nbytes))
                    file.write(tensor)
                    digest.update(tensor)
            name = digest.hexdigest()
            Path(temporary).replace(self.path(name))
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return [Place(name, offset, length) for offset, length in places]

    def path(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}"
