"""Rows of a Parquet table. Imported only for such a table: pyarrow takes a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

_BATCH_ROWS = 4096


class ParquetRows:
    """One table, read a few thousand rows at a time."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the footer.

        Raises:
            OSError: it is no Parquet file, or can't be read.
        """
        try:
            self._document = pq.ParquetFile(file)
        except pa.ArrowException as error:
            raise OSError(None, "it is no Parquet file, or it is damaged") from error
        self.names: list[str] = self._document.schema_arrow.names

    def __call__(self, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield the values of these columns, row by row.

        Raises:
            OSError: the rest is damaged, or can't be read.
        """
        try:
            for batch in self._document.iter_batches(_BATCH_ROWS, columns=list(columns)):
                yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
        except pa.ArrowException as error:
            raise OSError(None, "the rest of the table is damaged") from error
