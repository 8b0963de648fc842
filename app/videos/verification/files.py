"""The files of an output, compared with the manifests that list them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from app.videos.manifest import NAME
from app.videos.stores.base import ArtifactStore
from app.videos.verification.documents import Document, FileRow, NotOurs, Refused, parsed

_BLOCK_BYTES = 1 << 20
Fault = Literal["missing", "other_length", "other_digest", "unreadable", "bad_manifest"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One file that is not as its manifest says; `detail` says more, for people."""

    file: str
    fault: Fault
    detail: str


@dataclass(frozen=True, slots=True)
class CheckedFiles:
    """One manifest's files: `folder` is its place below the output; `document` is None where it can't be used."""

    folder: str
    document: Document | None
    files: int
    nbytes: int
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class Listing:
    """All files of an output.

    `manifests` are the folders with a manifest of this program, `unknown` the files that no manifest lists; the latter
    is right after every folder was checked.
    """

    store: ArtifactStore
    sizes: dict[str, int]
    known: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, store: ArtifactStore) -> Listing:
        """List an output.

        Raises:
            OSError: it can't be listed.
        """
        return cls(store, {stored.name: stored.nbytes for stored in store.list()})

    def folders(self) -> Iterator[str]:
        """Yield the folders with a `manifest.json`, sorted; the output itself is an empty name."""
        for name in sorted(self.sizes):
            if name == NAME or name.endswith(f"/{NAME}"):
                yield name.removesuffix(NAME).rstrip("/")

    def unknown(self, bookkeeping: tuple[str, ...]) -> list[str]:
        """Return the files that no manifest lists, but for those whose names begin with one of `bookkeeping`."""
        return sorted(name for name in self.sizes.keys() - self.known if not name.startswith(bookkeeping))

    def check(self, folder: str) -> CheckedFiles | None:
        """Read every file of a manifest; None if the manifest is another program's.

        Safe to call from several threads.
        """
        name = _joined(folder, NAME)
        try:
            with self.store.open(name) as file:
                document = parsed(file.read())
        except NotOurs:
            return None
        except Refused as error:
            return self._refused(folder, Problem(name, "bad_manifest", str(error)))
        except OSError as error:
            return self._refused(folder, Problem(name, "unreadable", _words(error)))
        problems = []
        for row in document.files:
            found = self._problem(_joined(folder, row.name), row)
            if found is not None:
                problems.append(found)
        self.known.update({name, *(_joined(folder, row.name) for row in document.files)})
        nbytes = sum(row.nbytes for row in document.files)
        return CheckedFiles(folder, document, len(document.files), nbytes, tuple(problems))

    def _refused(self, folder: str, problem: Problem) -> CheckedFiles:
        self.known.add(problem.file)
        return CheckedFiles(folder, None, 0, 0, (problem,))

    def _problem(self, name: str, row: FileRow) -> Problem | None:
        there = self.sizes.get(name)
        if there is None:
            return Problem(name, "missing", "there is no such file")
        if there != row.nbytes:
            return Problem(name, "other_length", f"{there} bytes, not {row.nbytes}")
        try:
            digest = sha256_of(self.store, name)
        except OSError as error:
            return Problem(name, "unreadable", _words(error))
        if digest != row.sha256:
            return Problem(name, "other_digest", f"sha256 {digest}, not {row.sha256}")
        return None


def sha256_of(store: ArtifactStore, name: str) -> str:
    """Return the SHA-256 of a file in hex.

    Raises:
        OSError: it can't be read.
    """
    digest = hashlib.sha256()
    with store.open(name) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _words(error: OSError) -> str:
    return error.strerror or "can't be read"
