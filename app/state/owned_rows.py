"""Tables beside the jobs whose rows a worker owns while it works on them; all workers of a host share them.

The worker that works on a row is its owner; a row of a dead owner is free again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from app.state.sqlite_file import SqliteFile


class OwnedRow(Protocol):
    """A row: a frozen dataclass with the columns of its table as fields."""

    @property
    def job_id(self) -> str: ...

    @property
    def owner(self) -> str | None: ...


Row = TypeVar("Row", bound=OwnedRow)


@dataclass(frozen=True)
class Table(Generic[Row]):
    """A table with a row per job. `due` is the condition, and the order, of the rows to work on at a time (`?`)."""

    name: str
    row: type[Row]
    due: str

    @cached_property
    def _select(self) -> str:
        columns = ", ".join(field.name for field in fields(self.row))  # type: ignore[arg-type]  # see OwnedRow
        return f"SELECT {columns} FROM {self.name} WHERE"  # noqa: S608  # our own names

    def insert(self, connection: sqlite3.Connection, job_id: str, url: str) -> None:
        """Add a row within the transaction that adds its job."""
        statement = f"INSERT INTO {self.name} (job_id, url) VALUES (?, ?)"  # noqa: S608  # our own names
        connection.execute(statement, (job_id, url))

    def delete(self, connection: sqlite3.Connection, job_id: str) -> None:
        """Remove a row within the transaction that removes its job."""
        connection.execute(f"DELETE FROM {self.name} WHERE job_id = ?", (job_id,))  # noqa: S608  # our own names

    def rows(self, connection: sqlite3.Connection, condition: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows that a condition names."""
        return [self.row(*row) for row in connection.execute(f"{self._select} {condition}", values)]

    def row_of(self, connection: sqlite3.Connection, job_id: str) -> Row | None:
        """Return the row of a job, if it has one."""
        return next(iter(self.rows(connection, "job_id = ?", (job_id,))), None)


class OwnedRows(Generic[Row]):
    """The rows of one worker. Every method raises VideosUnavailable where the file can't be used now.

    Args:
        table: their table.
        file: the index of the jobs, with this table.
        owner: this worker.
        is_dead: True for a worker that is gone.
    """

    def __init__(
        self, table: Table[Row], file: SqliteFile, owner: str, is_dead: Callable[[str | None], bool]
    ) -> None:
        self._table = table
        self._file = file
        self._owner = owner
        self._is_dead = is_dead

    def get(self, job_id: str) -> Row | None:
        with self._file.reading() as connection:
            return self._table.row_of(connection, job_id)

    def _claim(self, now: float, change: str, values: Sequence[Any] = ()) -> Row | None:
        """Own a row that is due and free, with a change of its columns; None if there is none."""
        with self._file.reading() as connection:  # most looks find nothing, and write nothing
            if not self._table.rows(connection, f"{self._table.due} LIMIT 1", (now,)):
                return None
        with self._file.writing() as connection:
            free = next(iter(self._free(self._table.rows(connection, self._table.due, (now,)))), None)
            if free is None:
                return None
            statement = (
                f"UPDATE {self._table.name} SET owner = ?, attempts = attempts + 1, {change} WHERE job_id = ?"  # noqa: S608  # our own names
            )
            connection.execute(statement, (self._owner, *values, free.job_id))
            return self._table.row_of(connection, free.job_id)

    def _free(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows that no living worker owns."""
        return [row for row in rows if row.owner is None or self._is_dead(row.owner)]
