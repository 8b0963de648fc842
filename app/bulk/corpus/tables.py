"""Lists of videos: CSV and Parquet tables with a column of paths or URIs, and text files with one per line."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from app.bulk.corpus.names import Place, SourceError
from app.hints import did_you_mean
from app.videos.names import shown
from app.videos.stores.opened import open_store

TABLES = (".csv", ".tsv", ".parquet", ".txt")
_URI_COLUMNS = ("uri", "url", "path", "file", "filename", "video")
_ID_COLUMNS = ("id", "video_id")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that were asked for; None: one of the usual names."""

    uri: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number from 1, and its text and id, or what is wrong with it."""

    number: int
    uri: str = ""
    id: str | None = None
    fault: str | None = None


def rows(table: Place, columns: Columns) -> Iterator[Row]:
    """Yield the rows of a table, one after another.

    Raises:
        SourceError: it can't be read, or has no such column.
    """
    with _opened(table) as file:
        if table.suffix == ".parquet":
            yield from _parquet(file, table, columns)
        elif table.suffix == ".txt":
            yield from _lines(file)
        else:
            yield from _csv(file, table, columns)


def check(table: Place, columns: Columns) -> None:
    """Read the head of a table.

    Raises:
        SourceError: see `rows`; or there is no row.
    """
    if next(rows(table, columns), None) is None:
        raise SourceError(f"{shown(table.uri)} lists no video")


@contextmanager
def _opened(table: Place) -> Iterator[BinaryIO]:
    try:
        with open_store(table.parent.uri).open(table.leaf) as file:
            yield file
    except OSError as error:
        raise SourceError(f"{shown(table.uri)}: {error.strerror or 'it cannot be read'}") from error


def _encoding(file: BinaryIO) -> tuple[str, str]:
    """Return the encoding that a text begins with the mark of, and what becomes of bytes that are none of it."""
    head = file.read(len(codecs.BOM_UTF16))
    file.seek(0)
    if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):  # Excel's "Unicode text"
        return "utf-16", "replace"
    return "utf-8-sig", "surrogateescape"


def _lines(file: BinaryIO) -> Iterator[Row]:
    with io.TextIOWrapper(file, *_encoding(file)) as text:
        for number, line in enumerate(text, 1):
            if line.strip() and not line.startswith("#"):
                yield Row(number, line.strip())


def _csv(file: BinaryIO, table: Place, columns: Columns) -> Iterator[Row]:
    with io.TextIOWrapper(file, *_encoding(file), newline="") as text:
        head = text.readline()
        separator = max("\t" if table.suffix == ".tsv" else ",;\t", key=head.count)
        names = next(csv.reader([head], delimiter=separator), [])
        uri, identity = _chosen(table, [name.strip() for name in names], columns)
        for number, cells in enumerate(_cells(csv.reader(text, delimiter=separator)), 1):
            if isinstance(cells, csv.Error):
                yield Row(number, fault=f"the row can't be read: {cells}")
            elif cells:
                yield _row(number, _cell(cells, uri), None if identity is None else _cell(cells, identity))


def _cells(reader: Iterator[list[str]]) -> Iterator[list[str] | csv.Error]:
    """Yield rows, and in the place of one that is damaged the error."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield error


def _cell(cells: Sequence[str], column: int) -> str | None:
    return cells[column].strip() if column < len(cells) else None


def _parquet(file: BinaryIO, table: Place, columns: Columns) -> Iterator[Row]:
    from app.bulk.corpus.parquet_rows import ParquetRows  # noqa: PLC0415  # takes a while

    values = ParquetRows(file)
    uri, identity = _chosen(table, values.names, columns)
    wanted = [values.names[uri]] if identity is None else [values.names[uri], values.names[identity]]
    number = 0
    try:
        for cells in values(wanted):
            number += 1
            yield _row(number, cells[0], cells[1] if len(cells) > 1 else None)
    except OSError as error:
        yield Row(number + 1, fault=error.strerror)


def _row(number: int, uri: object, identity: object) -> Row:
    name = None if identity in (None, "") else str(identity)
    if isinstance(uri, str) and uri:
        return Row(number, uri, name)
    return Row(number, id=name, fault="the row has no path or URI")


def _chosen(table: Place, names: Sequence[str], columns: Columns) -> tuple[int, int | None]:
    """Return the positions of the column of URIs and of that of ids, None where there is none."""
    usual = [name for name in names if name.lower() in _URI_COLUMNS]
    uri = columns.uri or next(iter(usual), None)
    identity = columns.id or next((name for name in names if name.lower() in _ID_COLUMNS), None)
    for asked, option in ((uri, "--uri-column"), (identity, "--id-column")):
        if asked is not None and asked not in names:
            raise SourceError(_no_column(table, names, option, asked))
    if uri is None:
        raise SourceError(
            f"{shown(table.uri)} has no column of videos ({', '.join(_URI_COLUMNS)}): "
            f"name one of its columns with --uri-column: {', '.join(names)}"
        )
    for asked in (uri, identity):
        if asked is not None and names.count(asked) > 1:
            raise SourceError(
                f"{shown(table.uri)} has several columns named {asked!r}: rename all but one of them"
            )
    return names.index(uri), None if identity is None else names.index(identity)


def _no_column(table: Place, names: Sequence[str], option: str, asked: str) -> str:
    there = ", ".join(names)
    return f"{option}: {shown(table.uri)} has no column {asked!r}, but {there}{did_you_mean(asked, names)}"
