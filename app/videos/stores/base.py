"""The interface of a store: named files, each published in one step.

A name is relative and has the parts of a path (`cam1/0001.mp4/manifest.json`). A file whose own name begins with a dot
is temporary or local: no store lists it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

PARTIAL = ".partial"
"""The folder beside artefacts that holds what is not finished; no store lists it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of a store: its name and its length in bytes."""

    name: str
    nbytes: int


class StoreUnusable(OSError):
    """The URL names no store, or none that this installation can use; `strerror` says what to do."""

    def __init__(self, words: str) -> None:
        super().__init__(errno.EINVAL, words)


class ArtifactStore(Protocol):
    """A place for artefacts. Safe to use from many threads.

    Every method raises OSError where the store can't do its work, with plain words in `strerror` and no credentials.
    """

    @property
    def url(self) -> str:
        """The place, for people: the path of a folder, or a URL."""

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Context manager with a temporary file, to be written and also read.

        It is published under `name` in one step when the block ends without an error, and dropped otherwise.
        """

    def put(self, name: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        """Publish `data` in one step; return False if the file exists and `only_if_absent` is set."""

    def open(self, name: str) -> BinaryIO:
        """Open a file to read it at any position.

        Raises:
            FileNotFoundError: there is none of this name.
        """

    def size(self, name: str) -> int | None:
        """Return the length of a file in bytes; None if there is none of this name."""

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Yield the files below the folder `prefix`, at any depth and in no order, with names relative to the store."""

    def delete(self, name: str) -> None:
        """Remove a file; one that does not exist is no error."""

    def within(self, prefix: str) -> ArtifactStore:
        """Return the store of a folder of this one."""


def checked_name(name: str) -> str:
    """Return the name.

    Raises:
        OSError: it would lie outside the store, or has empty parts.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise OSError(errno.EINVAL, "a name in a store is relative and has no empty part, '.' or '..'", name)
    return name


def is_listed(name: str) -> bool:
    """Return False for names of temporary and local files."""
    parts = name.split("/")
    return not parts[-1].startswith(".") and PARTIAL not in parts
