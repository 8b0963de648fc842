"""The URLs that videos of jobs are fetched from: a table beside the jobs, shared by all workers.

A job with such a row isn't run before its source is `fetched`. The worker that fetches is the row's owner; a row of a
dead owner is free again, and what lies on the disk then is `bytes` of the version `etag`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from app.state.database import Connection, Database, Owners
from app.state.owned_rows import OwnedRows, Table

SCHEMA = """
CREATE TABLE IF NOT EXISTS sources (
    job_id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    bytes BIGINT NOT NULL DEFAULT 0,
    total BIGINT,
    etag TEXT,
    attempts BIGINT NOT NULL DEFAULT 0,
    failures BIGINT NOT NULL DEFAULT 0,
    spent_s DOUBLE PRECISION NOT NULL DEFAULT 0,
    due DOUBLE PRECISION NOT NULL DEFAULT 0,
    error TEXT,
    owner TEXT
)
"""
# Ids of the jobs whose videos aren't there yet, within a statement.
UNFETCHED = "SELECT job_id FROM sources WHERE state IN ('waiting', 'fetching')"
State = Literal["waiting", "fetching", "fetched", "failed"]


@dataclass(frozen=True, slots=True)
class Source:
    """One row. `url` may hold secrets until the state is fetched or failed.

    `bytes` are on the disk, of `total` (None: the source doesn't say). `failures` counts the attempts in a row that
    brought nothing, `spent_s` all seconds so far, `due` is the time of the next attempt (s since 1970). `error` is the
    reason for which the last attempt failed.
    """

    job_id: str
    url: str
    state: State = "waiting"
    bytes: int = 0
    total: int | None = None
    etag: str | None = None
    attempts: int = 0
    failures: int = 0
    spent_s: float = 0.0
    due: float = 0.0
    error: str | None = None
    owner: str | None = None

    @property
    def reserved(self) -> int:
        """Bytes of the disk that count as used for it."""
        return max(self.bytes, self.total or 0)


TABLE = Table(
    "sources",
    Source,
    "state IN ('waiting', 'fetching') AND due <= ? AND job_id IN (SELECT id FROM jobs WHERE state = 'queued') "
    "ORDER BY due, (SELECT created FROM jobs WHERE id = job_id), job_id",
)


class Sources(OwnedRows[Source]):
    """The sources of one worker; see OwnedRows."""

    def __init__(self, database: Database, owners: Owners, ready: Callable[[Connection, str], None]) -> None:
        super().__init__(TABLE, database, owners)
        self._ready = ready  # told of a job whose video is there, within the transaction

    def claim(self, now: float) -> Source | None:
        """Take a source that is due and that no living worker fetches; None if there is none."""
        return self._claim(now, "state = 'fetching'")

    def progress(self, job_id: str, nbytes: int, total: int | None, etag: str | None, spent_s: float) -> bool:
        """Record what this worker has on the disk; return False if the job has been deleted or is another's."""
        with self._database.writing() as connection:
            changed = connection.execute(
                "UPDATE sources SET bytes = ?, total = ?, etag = ?, spent_s = ? WHERE job_id = ? AND owner = ? "
                "AND state = 'fetching' AND job_id IN (SELECT id FROM jobs WHERE state = 'queued')",
                (nbytes, total, etag, spent_s, job_id, self._owners.name),
            ).rowcount
            if changed:
                reserved = max(nbytes, total or 0)
                connection.execute("UPDATE jobs SET bytes = ? WHERE id = ?", (reserved, job_id))
            return bool(changed)

    def put_back(self, job_id: str, due: float, failures: int, spent_s: float, error: str | None) -> None:
        """Let any worker continue with a source of this one, at `due`."""
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE sources SET state = 'waiting', owner = NULL, due = ?, failures = ?, spent_s = ?, error = ? "
                "WHERE job_id = ? AND owner = ?",
                (due, failures, spent_s, error, job_id, self._owners.name),
            )

    def fetched(self, job_id: str, url: str, nbytes: int, sha256: str) -> bool:
        """Let the job run; `url` is the one that may be shown. Return False if the job has been deleted, or the source
        is another worker's.
        """
        with self._database.writing() as connection:
            changed = connection.execute(
                "UPDATE sources SET state = 'fetched', owner = NULL, url = ?, bytes = ?, total = ?, error = NULL "
                "WHERE job_id = ? AND owner = ? AND job_id IN (SELECT id FROM jobs WHERE state = 'queued')",
                (url, nbytes, nbytes, job_id, self._owners.name),
            ).rowcount
            if changed:
                connection.execute(
                    "UPDATE jobs SET bytes = ?, sha256 = ? WHERE id = ?", (nbytes, sha256, job_id)
                )
                self._ready(connection, job_id)
            return bool(changed)

    def failed(self, source: Source, url: str, now: float, code: str, detail: str) -> None:
        """End the job as failed, unless another worker has taken the source; `url` is the one that may be shown."""
        with self._database.writing() as connection:
            changed = connection.execute(
                "UPDATE sources SET state = 'failed', owner = NULL, url = ?, bytes = 0, error = ? "
                "WHERE job_id = ? AND attempts = ? AND state IN ('waiting', 'fetching')",
                (url, detail, source.job_id, source.attempts),
            ).rowcount
            if changed:
                connection.execute(
                    "UPDATE jobs SET state = 'failed', finished = ?, code = ?, detail = ?, bytes = 0 "
                    "WHERE id = ? AND state = 'queued'",
                    (now, code, detail, source.job_id),
                )

    def unfetched(self) -> list[Source]:
        """Sources that wait or are being fetched by nobody who lives."""
        with self._database.reading() as connection:
            return list(self._free(connection, self._table.rows(connection, f"job_id IN ({UNFETCHED})")))
