"""The callers' URLs that hear of the end of a video job: a table beside the jobs, shared by all workers.

A delivery is due once its job is over. The worker that attempts it is its owner; a row of a dead owner is free again,
so an attempt that was cut off is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.state.database import Database, Owners
from app.state.owned_rows import OwnedRows, Table

SCHEMA = """
CREATE TABLE IF NOT EXISTS callbacks (
    job_id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    attempts BIGINT NOT NULL DEFAULT 0,
    due DOUBLE PRECISION NOT NULL DEFAULT 0,
    attempted DOUBLE PRECISION,
    status BIGINT,
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


TABLE = Table(
    "callbacks",
    Callback,
    "state = 'waiting' AND due <= ? AND job_id IN (SELECT id FROM jobs WHERE state IN ('done', 'failed')) "
    "ORDER BY due, job_id",
)


class Callbacks(OwnedRows[Callback]):
    """The deliveries of one worker; see OwnedRows."""

    def __init__(self, database: Database, owners: Owners) -> None:
        super().__init__(TABLE, database, owners)

    def claim(self, now: float) -> Callback | None:
        """Take a delivery that is due and that no living worker attempts; None if there is none."""
        return self._claim(now, "attempted = ?", (now,))

    def refuse(self, reason: str) -> int:
        """End all deliveries that wait and that no living worker attempts as `refused`; return their number."""
        waiting = "state = 'waiting'"
        with self._database.reading() as connection:  # as a rule there is none
            if not self._table.rows(connection, f"{waiting} LIMIT 1"):
                return 0
        with self._database.writing() as connection:
            free = list(self._free(connection, self._table.rows(connection, waiting)))
            return sum(
                connection.execute(
                    "UPDATE callbacks SET owner = NULL, state = 'refused', error = ? "
                    "WHERE job_id = ? AND state = 'waiting' AND attempts = ?",
                    (reason, row.job_id, row.attempts),
                ).rowcount
                for row in free
            )

    def settle(
        self, job_id: str, state: State, status: int | None, error: str | None, due: float = 0.0
    ) -> None:
        """Record an attempt of this worker; one that is `waiting` is due again at `due`."""
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE callbacks SET owner = NULL, state = ?, status = ?, error = ?, due = ? "
                "WHERE job_id = ? AND owner = ?",
                (state, status, error, due, job_id, self._owners.name),
            )
