"""Parts of a dataset: Parquet files that are replaced as a whole, and know which videos they hold."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from app.bulk.tables.rows import Layout, VideoTable
from app.videos.stores.base import ArtifactStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_VIDEOS, _LAYOUT = "gateway.videos", "gateway.layout"
_OURS = "gateway."
_MAGIC = b"PAR1"
_PART = re.compile(r"part-(\d{6,})-[^/]*\.parquet")
_GROUP_BYTES = 8 << 20  # of a row group in memory
_BLOCK_BYTES = 1 << 20
_FOOTERS_BYTES = 16 << 20  # that are no matter


class DamagedPart(OSError):
    """A part is no Parquet file of this program; `strerror` says what to do."""

    def __init__(self, name: str) -> None:
        super().__init__(
            5, "this part of a table is damaged: remove it and run `gateway bulk tables` again", name
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its name in the store, the digest of its layout, and the marks of some of its videos' artefacts."""

    name: str
    layout: str
    videos: Mapping[str, str]


def part_number(name: str) -> int:
    """Return the number of a part; -1 for a file that is none."""
    found = _PART.fullmatch(name.rpartition("/")[2])
    return int(found[1]) if found else -1


def parts_of(store: ArtifactStore, folder: str, wanted: Collection[str]) -> list[Part]:
    """Return the parts of a dataset in the order of their numbers, with the marks of the wanted videos.

    Raises:
        OSError: one can't be read.
    """
    found = sorted((stored.name for stored in store.list(folder)), key=part_number)
    return [_read(store, name, wanted) for name in found if part_number(name) >= 0]


def layout_of(store: ArtifactStore, name: str) -> Layout:
    """Return the layout of a part.

    Raises:
        OSError: it can't be read.
    """
    with store.open(name) as file:
        return _told(file, name)[0]


def _read(store: ArtifactStore, name: str, wanted: Collection[str]) -> Part:
    with store.open(name) as file:
        layout, videos = _told(file, name)
    return Part(name, layout.digest, {video: mark for video, mark in videos.items() if video in wanted})


def _told(file: BinaryIO, name: str) -> tuple[Layout, dict[str, str]]:
    """Return the layout of a part, and the marks of all its videos."""
    import pyarrow as pa  # noqa: PLC0415  # an extra: bulk
    import pyarrow.parquet as pq  # noqa: PLC0415  # as above

    try:
        source = pq.ParquetFile(file)
        told = {key.decode(): value.decode() for key, value in (source.metadata.metadata or {}).items()}
        videos: dict[str, str] = json.loads(told.pop(_VIDEOS))
        digest = told.pop(_LAYOUT)
        told = {key: value for key, value in told.items() if key.startswith(_OURS)}
        return Layout(source.schema_arrow.remove_metadata(), told, digest), videos
    except (pa.ArrowException, KeyError, ValueError):
        raise DamagedPart(name) from None


@contextmanager
def new_part(
    store: ArtifactStore, name: str, layout: Layout, check: Callable[[], None]
) -> Iterator[PartWriter]:
    """Context manager with a part that appears when the block ends without an error, in place of the one before.

    Args:
        store: of the output.
        name: of the part.
        layout: that all rows have.
        check: called right before the part appears; what it raises drops the part.

    Raises:
        OSError: the part can't be written.
    """
    with store.writing(name) as file:
        with _writer(file, layout, []) as writer:
            part = PartWriter(name, layout, file, writer)
            yield part
            part.finish()
        check()


@contextmanager
def longer_part(
    store: ArtifactStore, name: str, layout: Layout, check: Callable[[], None]
) -> Iterator[PartWriter]:
    """Like `new_part`, with all rows that the part has and then those that the block adds.

    All bytes of the part stay where they are, its old footer too, and a new footer lists the old row groups and the new
    ones. So a reader that has read the old footer, and opens the file again for the rows, still finds what it lists.

    Raises:
        OSError: the part can't be read or written.
    """
    import pyarrow as pa  # noqa: PLC0415  # an extra: bulk
    import pyarrow.parquet as pq  # noqa: PLC0415  # as above

    with store.writing(name) as file:
        sink = pa.PythonFile(file, "w")
        footers: list[Any] = []
        with _writer(sink, layout, footers) as writer:  # which writes the magic number that files begin with
            part = PartWriter(name, layout, file, writer)
            with store.open(name) as old:
                before = pq.read_metadata(old)
                part.videos |= _told(old, name)[1]
                old.seek(len(_MAGIC))
                while block := old.read(_BLOCK_BYTES):
                    sink.write(block)  # and so counts the offsets of what follows
            yield part
            part.finish()
        footers[0].append_row_groups(before)
        footers[0].write_metadata_file(sink)
        sink.flush()
        check()


def _writer(sink: Any, layout: Layout, footers: list[Any]) -> pq.ParquetWriter:
    """Return a writer that adds the file's metadata to `footers` at its end."""
    import pyarrow.parquet as pq  # noqa: PLC0415  # as above

    schema = layout.schema.with_metadata({**layout.told, _LAYOUT: layout.digest})
    return pq.ParquetWriter(sink, schema, compression="zstd", metadata_collector=footers)


def is_mostly_rows(store: ArtifactStore, name: str) -> bool:
    """Return False for a part that `longer_part` has made longer so often that old footers are most of it.

    Raises:
        OSError: it can't be read.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415  # as above

    with store.open(name) as file:
        told = pq.read_metadata(file)
        whole = file.seek(0, os.SEEK_END)
    groups = (told.row_group(place) for place in range(told.num_row_groups))
    rows: int = sum(
        group.column(place).total_compressed_size for group in groups for place in range(group.num_columns)
    )
    return whole - rows < max(rows, _FOOTERS_BYTES)


class PartWriter:
    """See `new_part` and `longer_part`. Memory holds one row group."""

    def __init__(self, name: str, layout: Layout, file: BinaryIO, writer: Any) -> None:
        self.name = name
        self.layout = layout
        self._file = file
        self._writer = writer
        self.videos: dict[str, str] = {}
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0

    @property
    def nbytes(self) -> int:
        """The length of what is written so far."""
        return self._file.tell()

    def take(self, video: VideoTable) -> None:
        """Add the rows of a video.

        Raises:
            OSError: they can't be read, or the part can't be written.
        """
        for block in video.blocks:
            self._add(block)
        self.videos[video.artifact.video] = video.artifact.mark

    def keep(self, store: ArtifactStore, part: str, dropped: Collection[str]) -> None:
        """Take over the rows of a part of the same layout, but for those of some videos.

        Raises:
            OSError: it can't be read.
        """
        with store.open(part) as file:
            _, videos = _told(file, part)
            self.videos |= {video: mark for video, mark in videos.items() if video not in dropped}
            for table in _groups(file, part, dropped):
                self._add(table)

    def finish(self) -> None:
        """Write what waits, and the list of the videos."""
        self._flush()
        self._writer.add_key_value_metadata({_VIDEOS: json.dumps(self.videos)})

    def _add(self, table: pa.Table) -> None:
        self._waiting.append(table.replace_schema_metadata())
        self._waiting_bytes += table.nbytes
        if self._waiting_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa  # noqa: PLC0415  # as above

        if self._waiting:
            table = pa.concat_tables(self._waiting)
            if table.num_rows:
                self._writer.write_table(table, row_group_size=table.num_rows)
            self._waiting, self._waiting_bytes = [], 0


def _groups(file: BinaryIO, name: str, dropped: Collection[str]) -> Iterator[pa.Table]:
    """Yield the row groups of a part without the rows of some videos."""
    import pyarrow as pa  # noqa: PLC0415  # as above
    import pyarrow.compute as pc  # noqa: PLC0415  # as above
    import pyarrow.parquet as pq  # noqa: PLC0415  # as above

    videos = pa.array(sorted(dropped), pa.string())
    try:
        source = pq.ParquetFile(file)
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            yield table.filter(pc.invert(pc.is_in(table["name"], videos))) if dropped else table
    except pa.ArrowException:
        raise DamagedPart(name) from None
