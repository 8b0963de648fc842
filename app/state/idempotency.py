"""The `Idempotency-Key`s of submissions: a table beside the jobs, shared by all workers of a host.

A row begins as a reservation: one request holds the key while it reads its video. The transaction that adds the job
ends the reservation. The row then lives as long as its job. The reservation of a dead worker, or of a request that is
over its time, is free again.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from app.errors import IdempotencyKeyInUse
from app.state.sqlite_file import SqliteFile

SCHEMA = """
CREATE TABLE IF NOT EXISTS idempotency_keys (
    made_by TEXT NOT NULL,
    key TEXT NOT NULL,
    job_id TEXT NOT NULL UNIQUE,
    digest TEXT,
    owner TEXT,
    expires REAL NOT NULL,
    PRIMARY KEY (made_by, key)
)
"""
_RETRY_S = 2.0
_IN_USE = "another request with this Idempotency-Key is being received"


@dataclass(frozen=True, slots=True)
class Held:
    """A key and its job. `digest`: SHA-256 in hex of the submission; None: reserved, the job is still to be added."""

    job_id: str
    digest: str | None


class IdempotencyKeys:
    """The keys, as one worker sees them. Every method raises VideosUnavailable where the file can't be used now.

    `made_by` is the name of the API key that sends the request (None: sent without keys); each has keys of its own.
    Times are in seconds since 1970.
    """

    def __init__(self, file: SqliteFile, owner: str, is_dead: Callable[[str | None], bool]) -> None:
        self._file = file
        self._owner = owner
        self._is_dead = is_dead

    def hold(self, made_by: str | None, key: str, now: float, expires: float) -> Held:
        """Return the job that was added with a key, or reserve the key until `expires` for a job to add.

        Raises:
            IdempotencyKeyInUse: another request has reserved it.
        """
        row = (made_by or "", key)
        with self._file.writing() as connection:
            found = connection.execute(
                "SELECT job_id, digest, owner, expires FROM idempotency_keys WHERE made_by = ? AND key = ?",
                row,
            ).fetchone()
            if found is not None:
                job_id, digest, owner, until = found
                if digest is not None:
                    return Held(job_id, digest)
                if until > now and not self._is_dead(owner):
                    raise IdempotencyKeyInUse(_IN_USE, retry_after=_RETRY_S)
            job_id = uuid.uuid4().hex
            connection.execute(
                "INSERT OR REPLACE INTO idempotency_keys (made_by, key, job_id, owner, expires) VALUES (?, ?, ?, ?, ?)",
                (*row, job_id, self._owner, expires),
            )
            return Held(job_id, None)

    def release(self, job_id: str) -> None:
        """End a reservation whose job was not added."""
        with self._file.writing() as connection:
            connection.execute("DELETE FROM idempotency_keys WHERE job_id = ? AND digest IS NULL", (job_id,))


def purge(connection: sqlite3.Connection, now: float) -> None:
    """Remove the keys of jobs that are gone, and the reservations that are over."""
    connection.execute(
        "DELETE FROM idempotency_keys WHERE job_id NOT IN (SELECT id FROM jobs) "
        "AND (digest IS NOT NULL OR expires < ?)",
        (now,),
    )


def settle(connection: sqlite3.Connection, job_id: str, digest: str) -> None:
    """Give a reserved key its job, within the transaction that adds the job.

    Raises:
        IdempotencyKeyInUse: the reservation is over, and another request has the key.
    """
    changed = connection.execute(
        "UPDATE idempotency_keys SET digest = ?, owner = NULL WHERE job_id = ? AND digest IS NULL",
        (digest, job_id),
    ).rowcount
    if not changed:
        raise IdempotencyKeyInUse(_IN_USE, retry_after=_RETRY_S)


def forget(connection: sqlite3.Connection, job_id: str) -> None:
    """Remove the key of a job, within the transaction that deletes the job."""
    connection.execute("DELETE FROM idempotency_keys WHERE job_id = ?", (job_id,))
