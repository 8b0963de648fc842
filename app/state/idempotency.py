"""The `Idempotency-Key`s of submissions: a table beside the jobs, shared by all workers.

A row begins as a reservation: one request holds the key while it reads its video. The transaction that adds the job
ends the reservation. The row then lives as long as its job. The reservation of a dead worker, or of a request that is
over its time, is free again.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from app.errors import IdempotencyKeyInUse, VideosUnavailable
from app.state.database import Connection, Database, Owners

SCHEMA = """
CREATE TABLE IF NOT EXISTS idempotency_keys (
    made_by TEXT NOT NULL,
    key TEXT NOT NULL,
    job_id TEXT NOT NULL UNIQUE,
    digest TEXT,
    owner TEXT,
    expires DOUBLE PRECISION NOT NULL,
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
    """The keys, as one worker sees them. Every method raises VideosUnavailable where the database can't be used now.

    `made_by` is the name of the API key that sends the request (None: sent without keys); each has keys of its own.
    Times are in seconds since 1970.
    """

    def __init__(self, database: Database, owners: Owners) -> None:
        self._database = database
        self._owners = owners
        self._left: set[str] = set()  # reservations that may still be in the database, which was away

    def hold(self, made_by: str | None, key: str, now: float, expires: float) -> Held:
        """Return the job that was added with a key, or reserve the key until `expires` for a job to add.

        Raises:
            IdempotencyKeyInUse: another request has reserved it.
        """
        job_id = uuid.uuid4().hex
        try:
            return self._hold((made_by or "", key), job_id, now, expires)
        except VideosUnavailable:
            self._left.add(job_id)  # the answer to its commit may be what is lost
            raise

    def _hold(self, row: tuple[str, str], fresh: str, now: float, expires: float) -> Held:
        with self._database.writing(alone=True) as connection:
            found = connection.execute(
                "SELECT job_id, digest, owner, expires, EXISTS (SELECT 1 FROM jobs WHERE jobs.id = job_id AND "
                "state != 'deleted') FROM idempotency_keys WHERE made_by = ? AND key = ?",
                row,
            ).fetchone()
            if found is not None:
                job_id, digest, owner, until, there = found
                if there:
                    return Held(job_id, digest)
                # Releases of schema 1.0 delete jobs and leave their keys.
                if digest is None and until > now and not self._owners.is_dead(connection, owner):
                    raise IdempotencyKeyInUse(_IN_USE, retry_after=_RETRY_S)
            connection.execute(
                "INSERT INTO idempotency_keys (made_by, key, job_id, owner, expires) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (made_by, key) DO UPDATE SET job_id = excluded.job_id, digest = NULL, "
                "owner = excluded.owner, expires = excluded.expires",
                (*row, fresh, self._owners.name, expires),
            )
            return Held(fresh, None)

    def release(self, job_id: str) -> None:
        """End a reservation whose job was not added; one that can't be ended now is left to `release_left`."""
        self._left.add(job_id)
        with self._database.writing() as connection:
            connection.execute("DELETE FROM idempotency_keys WHERE job_id = ? AND digest IS NULL", (job_id,))
        self._left.discard(job_id)

    def leave(self, job_id: str) -> None:
        """Have `release_left` end a reservation. Never blocks."""
        self._left.add(job_id)

    def release_left(self) -> None:
        """End the reservations that requests have left, or an absence of the database."""
        for job_id in tuple(self._left):
            self.release(job_id)


def purge(connection: Connection, now: float) -> None:
    """Remove the keys of jobs that are gone, and the reservations that are over."""
    connection.execute(
        "DELETE FROM idempotency_keys WHERE job_id NOT IN (SELECT id FROM jobs) "
        "AND (digest IS NOT NULL OR expires < ?)",
        (now,),
    )


def settle(connection: Connection, job_id: str, digest: str) -> None:
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


def forget(connection: Connection, job_id: str) -> None:
    """Remove the key of a job, within the transaction that deletes the job."""
    connection.execute("DELETE FROM idempotency_keys WHERE job_id = ?", (job_id,))
