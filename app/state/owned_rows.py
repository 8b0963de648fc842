"""Tables beside the jobs whose rows a worker owns while it works on them; all workers share them.

The worker that works on a row is its owner; a row of a dead owner is free again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from app.state.database import Connection, Database, Owners


class OwnedRow(Protocol):
    """A row: a frozen dataclass with the columns of its table as fields."""

    @property
    def job_id(self) -> str: ...

    @property
    def owner(self) -> str | None: ...

    @property
    def attempts(self) -> int: ...

    @property
    def state(self) -> str: ...


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

    def insert(self, connection: Connection, job_id: str, url: str) -> None:
        """Add a row within the transaction that adds its job."""
        statement = f"INSERT INTO {self.name} (job_id, url) VALUES (?, ?)"  # noqa: S608  # our own names
        connection.execute(statement, (job_id, url))

    def delete(self, connection: Connection, job_id: str) -> None:
        """Remove a row within the transaction that removes its job."""
        connection.execute(f"DELETE FROM {self.name} WHERE job_id = ?", (job_id,))  # noqa: S608  # our own names

    def rows(self, connection: Connection, condition: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows that a condition names."""
        return [self.row(*row) for row in connection.execute(f"{self._select} {condition}", values)]

    def row_of(self, connection: Connection, job_id: str) -> Row | None:
        """Return the row of a job, if it has one."""
        return next(iter(self.rows(connection, "job_id = ?", (job_id,))), None)


class OwnedRows(Generic[Row]):
    """The rows of one worker. Every method raises VideosUnavailable where the file can't be used now.

    Args:
        table: their table.
        database: of the jobs, with this table.
        owners: the workers that share it.
    """

    def __init__(self, table: Table[Row], database: Database, owners: Owners) -> None:
        self._table = table
        self._database = database
        self._owners = owners

    def get(self, job_id: str) -> Row | None:
        with self._database.reading() as connection:
            return self._table.row_of(connection, job_id)

    def _claim(self, now: float, change: str, values: Sequence[Any] = ()) -> Row | None:
        """Own a row that is due and free, with a change of its columns; None if there is none."""
        with self._database.reading() as connection:  # most looks find nothing, and write nothing
            if not self._table.rows(connection, f"{self._table.due} LIMIT 1", (now,)):
                return None
        with self._database.writing() as connection:
            for free in self._free(connection, self._table.rows(connection, self._table.due, (now,))):
                statement = (
                    f"UPDATE {self._table.name} SET owner = ?, attempts = attempts + 1, {change} "  # noqa: S608  # our own names
                    "WHERE job_id = ? AND attempts = ? AND state = ? AND coalesce(owner, '') = ?"
                )
                seen = (free.job_id, free.attempts, free.state, free.owner or "")
                if connection.execute(statement, (self._owners.name, *values, *seen)).rowcount:
                    return self._table.row_of(connection, free.job_id)
        return None

    def _free(self, connection: Connection, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows that no living worker owns."""
        return (row for row in rows if self._owners.is_dead(connection, row.owner))
