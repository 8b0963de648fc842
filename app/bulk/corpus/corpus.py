"""The list of a run: every video that the sources name, one after another, each with its name below the output."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from app.bulk.corpus import places, tables
from app.bulk.corpus.digests import Digests, digest
from app.bulk.corpus.names import Place, SourceError, common, name_of, place
from app.bulk.corpus.places import Found
from app.bulk.corpus.tables import Columns
from app.bulk.entries import Entry
from app.videos.names import is_video, shown
from app.videos.stores.opened import open_store


@dataclass(frozen=True, slots=True)
class _Source:
    """One source: a table, or places of videos below `base`."""

    base: Place
    table: Place | None = None
    pattern: Place | None = None
    video: Place | None = None

    def found(self) -> Iterator[Found]:
        if self.video is not None:
            return iter((Found(self.video),))
        return places.below(self.base) if self.pattern is None else places.matching(self.pattern)


class Corpus:
    """The entries of all sources; every iteration reads the sources again, and holds no list in memory.

    Args:
        sources: files, folders, patterns, `s3://` prefixes, and tables.
        root: the folder that names are relative to; by default the deepest one that holds all sources.
        columns: of tables.

    Raises:
        SourceError: a source is not there, or can't be used.
    """

    def __init__(
        self, sources: Sequence[str], root: str | None = None, columns: Columns | None = None
    ) -> None:
        self._columns = columns or Columns()
        self._sources = []
        for source in sources:
            with _readable(source):
                self._sources.append(self._source(source))
        self._root = common([source.base for source in self._sources]) if root is None else place(root)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries in the order of the sources; a name that comes again is a fault."""
        seen = Digests()
        for entry in self._entries():
            yield entry if seen.add(digest(entry.name)) else _duplicate(entry, seen)

    def _entries(self) -> Iterator[Entry]:
        for source in self._sources:
            with _readable(source.base.uri):
                if source.table is not None:
                    yield from self._of_table(source.table)
                else:
                    yield from map(self._entry, source.found())

    def _entry(self, found: Found) -> Entry:
        try:
            name = name_of(found.place, self._root)
        except SourceError as error:
            return Entry(shown(found.place.path).replace("..", "__"), found.place.uri, str(error))
        code = "unreadable_source" if found.fault else "invalid_entry"
        return Entry(name, found.place.uri, found.fault, code=code)

    def _of_table(self, table: Place) -> Iterator[Entry]:
        folder = None if table.remote else table.parent.path
        for row in tables.rows(table, self._columns):
            fault = row.fault
            if fault is None:
                try:
                    video = place(row.uri, folder)
                    yield Entry(name_of(video, self._root), video.uri, id=row.id)
                    continue
                except SourceError as error:
                    fault = str(error)
            leaf = shown(table.leaf)
            yield Entry(
                f"{leaf}#{row.number}", shown(row.uri), f"row {row.number} of {leaf}: {fault}", row.id
            )

    def _source(self, text: str) -> _Source:
        there = place(text)
        if there.remote:
            return self._in_bucket(there)
        if os.path.isdir(there.path):  # noqa: PTH112  # unlike Path's, it answers for every name
            return _all_below(there)
        if os.path.isfile(there.path):  # noqa: PTH113
            return self._file(there)
        if places.has_pattern(text):
            return _pattern(there, text)
        raise SourceError(f"there is no file or folder {shown(text)}")

    def _in_bucket(self, there: Place) -> _Source:
        if there.suffix in tables.TABLES:
            return self._file(there)
        if places.has_pattern(there.path):
            return _pattern(there, there.uri)
        if is_video(there.leaf) and _is_object(there):
            return self._file(there)
        return _all_below(there)

    def _file(self, there: Place) -> _Source:
        if there.suffix in tables.TABLES:
            tables.check(there, self._columns)
            return _Source(there.parent, table=there)
        return _Source(there.parent, video=there)


@contextmanager
def _readable(source: str) -> Iterator[None]:
    """Tell an error of a bucket or a folder as one of the source."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"{shown(source)}: {error.strerror or 'it cannot be read'}") from error


def _is_object(there: Place) -> bool:
    return "/" in there.path and open_store(there.parent.uri).size(there.leaf) is not None


def _all_below(there: Place) -> _Source:
    if next(places.below(there), None) is None:
        raise SourceError(f"there is no video at {shown(there.uri)}")
    return _Source(there)


def _pattern(there: Place, text: str) -> _Source:
    if all(found.fault is not None for found in islice(places.matching(there), 1)):
        raise SourceError(f"no video matches {shown(text)}")
    return _Source(places.before_pattern(there), pattern=there)


def _duplicate(entry: Entry, seen: Digests) -> Entry:
    """Return the row of a repeated name: called `NAME#2`, or `#3` and so on if that is taken, too."""
    number = 2
    while not seen.add(digest(f"{entry.name}#{number}")):
        number += 1
    words = f"a video named {entry.name} is listed before, which counts (--relative-to changes names)"
    return Entry(f"{entry.name}#{number}", entry.uri, words, entry.id, "duplicate")
