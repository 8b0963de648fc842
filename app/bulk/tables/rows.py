"""The rows of one video's artefact, with the columns that tell the videos of a run apart."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

from app.media.npz import Archive
from app.videos.components.base import Component
from app.videos.formats.parquet import ArtifactTable
from app.videos.stores.base import ArtifactStore

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK_BYTES = 1 << 20


class NotTaken(Exception):
    """The artefact can't be put into a table now; the message says why."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One artefact of one video, as its manifest lists it; `file` is its name in the store."""

    video: str
    id: str | None
    run_id: str
    file: str
    sha256: str

    @property
    def mark(self) -> str:
        """Tell this artefact from others of the same video; the rows also name the run and the caller's id."""
        return hashlib.sha256("\n".join((self.sha256, self.run_id, self.id or "")).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Layout:
    """The schema of a part, what its file says of all rows, and a digest of both: all videos of a part share it."""

    schema: pa.Schema
    told: Mapping[str, str]
    digest: str


@dataclass(frozen=True, slots=True)
class VideoTable:
    """The rows of one artefact; all blocks have the layout's schema."""

    artifact: Artifact
    layout: Layout
    blocks: Iterator[pa.Table]


@contextmanager
def video_table(store: ArtifactStore, artifact: Artifact, component: type[Component]) -> Iterator[VideoTable]:
    """Open the table of an artefact whose bytes are those that the manifest lists.

    Raises:
        NotTaken: the artefact is gone, being replaced, or damaged.
        OSError: the store can't be read.
    """
    with _unchanged(store, artifact) as file:
        try:
            archive = Archive(file)
        except zipfile.BadZipFile:
            raise NotTaken("the artefact is no archive") from None
        with archive:
            yield _table(archive, artifact, component)


def _table(archive: Archive, artifact: Artifact, component: type[Component]) -> VideoTable:
    try:
        source = ArtifactTable(archive, component)
        blocks = source.blocks()
        first = _named(next(blocks), artifact)
    except (LookupError, ValueError, TypeError, StopIteration, zipfile.BadZipFile, zlib.error):
        raise NotTaken("the artefact lacks arrays that its table needs") from None
    told = source.metadata()
    described = json.dumps([str(first.schema), sorted(told.items())])
    layout = Layout(first.schema, told, hashlib.sha256(described.encode()).hexdigest()[:16])
    return VideoTable(artifact, layout, chain((first,), _rest(blocks, artifact)))


def _rest(blocks: Iterator[pa.Table], artifact: Artifact) -> Iterator[pa.Table]:
    """Yield the blocks after the first.

    Raises:
        OSError: one can't be read, although the file is the one that the manifest lists.
    """
    try:
        for block in blocks:
            yield _named(block, artifact)
    except (LookupError, ValueError, TypeError, zipfile.BadZipFile, zlib.error):
        raise OSError(errno.EIO, "the artefact is damaged: analyse its video again", artifact.file) from None


def _named(block: pa.Table, artifact: Artifact) -> pa.Table:
    """Put the columns `name`, `id` and `run_id` before the others."""
    import pyarrow as pa  # noqa: PLC0415  # an extra: bulk

    for place, (column, value) in enumerate(
        (("name", artifact.video), ("id", artifact.id), ("run_id", artifact.run_id))
    ):
        values = pa.repeat(pa.scalar(value, pa.string()), block.num_rows)
        block = block.add_column(place, column, values)
    return block


@contextmanager
def _unchanged(store: ArtifactStore, artifact: Artifact) -> Iterator[BinaryIO]:
    """Open a file, after all of it was compared with its digest.

    What is read later is what was compared: a published file is replaced, never changed, and an object of a bucket is
    copied first.
    """
    try:
        with store.open(artifact.file) as file:
            if _has_descriptor(file):
                _compare(file, None, artifact)
                file.seek(0)
                yield file
                return
            with tempfile.TemporaryFile(prefix="gateway-") as copy:
                _compare(file, copy, artifact)
                copy.seek(0)
                yield copy
    except FileNotFoundError:
        raise NotTaken("the artefact is not there") from None


def _has_descriptor(file: BinaryIO) -> bool:
    try:
        return file.fileno() >= 0
    except (io.UnsupportedOperation, AttributeError):
        return False


def _compare(file: BinaryIO, copy: BinaryIO | None, artifact: Artifact) -> None:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
        if copy is not None:
            copy.write(block)
    if digest.hexdigest() != artifact.sha256:
        raise NotTaken("the artefact is not the one that the manifest lists")
