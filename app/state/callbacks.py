"""The callers' URLs that hear of the end of a video job: a table beside the jobs, shared by all workers of a host.

A delivery is due once its job is over. The worker that attempts it is its owner; a row of a dead owner is free again,
so an attempt that was cut off is repeated.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

from app.state.sqlite_file import SqliteFile

SCHEMA = """
CREATE TABLE IF NOT EXISTS callbacks (
    job_id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,
    attempted REAL,
    status INTEGER,
    error TEXT,
    owner TEXT
)
"""
State = Literal["waiting", "delivered", "failed", "refused"]


@dataclass(frozen=True, slots=True)
class Callback:
    """One row. Times in seconds since 1970: `due` for the next attempt, `attempted` for the last one.

    `status` is the HTTP status of the last answer, `error` why the last attempt failed.
    """

    job_id: str
    url: str
    state: State = "waiting"
    attempts: int = 0
    due: float = 0.0
    attempted: float | None = None
    status: int | None = None
    error: str | None = None
    owner: str | None = None


_COLUMNS = ", ".join(entry.name for entry in fields(Callback))
_DUE = (
    f"SELECT {_COLUMNS} FROM callbacks WHERE state = 'waiting' AND due <= ? AND job_id IN "  # noqa: S608  # our own names
    "(SELECT id FROM jobs WHERE state IN ('done', 'failed')) ORDER BY due, job_id"
)


def insert(connection: sqlite3.Connection, job_id: str, url: str) -> None:
    """Add a callback within the transaction that adds its job."""
    connection.execute("INSERT INTO callbacks (job_id, url) VALUES (?, ?)", (job_id, url))


def delete(connection: sqlite3.Connection, job_id: str) -> None:
    """Remove a callback within the transaction that removes its job."""
    connection.execute("DELETE FROM callbacks WHERE job_id = ?", (job_id,))


class Callbacks:
    """The rows of one worker. Every method raises VideosUnavailable where the file can't be used now.

    Args:
        file: the index of the jobs, with both tables.
        owner: this worker.
        is_dead: True for a worker that is gone.
    """

    def __init__(self, file: SqliteFile, owner: str, is_dead: Callable[[str | None], bool]) -> None:
        self._file = file
        self._owner = owner
        self._is_dead = is_dead

    def get(self, job_id: str) -> Callback | None:
        with self._file.reading() as connection:
            query = f"SELECT {_COLUMNS} FROM callbacks WHERE job_id = ?"  # noqa: S608  # our own names
            row = connection.execute(query, (job_id,)).fetchone()
        return None if row is None else Callback(*row)

    def claim(self, now: float) -> Callback | None:
        """Take a delivery that is due and that no living worker attempts; None if there is none."""
        with self._file.reading() as connection:  # most looks find nothing, and write nothing
            if connection.execute(f"{_DUE} LIMIT 1", (now,)).fetchone() is None:
                return None
        with self._file.writing() as connection:
            rows = [Callback(*row) for row in connection.execute(_DUE, (now,))]
            free = next((row for row in rows if row.owner is None or self._is_dead(row.owner)), None)
            if free is None:
                return None
            connection.execute(
                "UPDATE callbacks SET owner = ?, attempted = ?, attempts = attempts + 1 WHERE job_id = ?",
                (self._owner, now, free.job_id),
            )
            query = f"SELECT {_COLUMNS} FROM callbacks WHERE job_id = ?"  # noqa: S608  # our own names
            return Callback(*connection.execute(query, (free.job_id,)).fetchone())

    def refuse(self, reason: str) -> int:
        """End all deliveries that wait and that no living worker attempts as `refused`; return their number."""
        waiting = f"SELECT {_COLUMNS} FROM callbacks WHERE state = 'waiting'"  # noqa: S608  # our own names
        with self._file.reading() as connection:  # as a rule there is none
            if connection.execute(f"{waiting} LIMIT 1").fetchone() is None:
                return 0
        with self._file.writing() as connection:
            rows = [Callback(*row) for row in connection.execute(waiting)]
            free = [row.job_id for row in rows if row.owner is None or self._is_dead(row.owner)]
            connection.executemany(
                "UPDATE callbacks SET owner = NULL, state = 'refused', error = ? WHERE job_id = ?",
                [(reason, job_id) for job_id in free],
            )
            return len(free)

    def settle(
        self, job_id: str, state: State, status: int | None, error: str | None, due: float = 0.0
    ) -> None:
        """Record an attempt of this worker; one that is `waiting` is due again at `due`."""
        with self._file.writing() as connection:
            connection.execute(
                "UPDATE callbacks SET owner = NULL, state = ?, status = ?, error = ?, due = ? "
                "WHERE job_id = ? AND owner = ?",
                (state, status, error, due, job_id, self._owner),
            )
