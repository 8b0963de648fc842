"""The index of video jobs: SQLite in the jobs' folder, shared by all workers of a host.

A worker that runs jobs holds a lock on a file of its own. The kernel releases the lock when the process dies, however
it dies, so the jobs of a dead worker are known at once and without a clock.
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

from app.errors import VideosUnavailable
from app.state import callbacks, idempotency, schema_version, sources
from app.state.callbacks import Callbacks
from app.state.idempotency import IdempotencyKeys
from app.state.schema_version import SchemaVersion
from app.state.sources import Sources
from app.state.sqlite_file import RETRY_S, SqliteFile

FINISHED = ("done", "failed")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    name TEXT NOT NULL,
    profile TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    frames INTEGER NOT NULL DEFAULT 0,
    expected INTEGER,
    fraction REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    code TEXT,
    detail TEXT,
    owner TEXT,
    kept_bytes INTEGER NOT NULL DEFAULT 0,
    made_by TEXT
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);
CREATE INDEX IF NOT EXISTS jobs_by_age ON jobs (created DESC, id)
"""
# Columns that earlier versions did not have.
_ADDED = {"made_by": "TEXT"}


@dataclass(frozen=True, slots=True)
class Job:
    """One row. `state`: queued, running, done, failed, or deleted (its files are about to go).

    Times in seconds since 1970; `code` and `detail` say what failed, what a queued job waits for, or where a partial
    result breaks off. `owner` is the worker that runs it, `made_by` the name of the API key that made it (None: made
    without keys).
    """

    id: str
    state: str
    name: str
    profile: str
    bytes: int
    sha256: str
    created: float
    started: float | None = None
    finished: float | None = None
    frames: int = 0
    expected: int | None = None
    fraction: float | None = None
    attempts: int = 0
    not_before: float = 0.0
    code: str | None = None
    detail: str | None = None
    owner: str | None = None
    kept_bytes: int = 0
    made_by: str | None = None

    @property
    def partial(self) -> bool:
        """The part of the video that could be read is done; `code` and `detail` give the reason for the end."""
        return self.state == "done" and self.code is not None


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the list of all jobs, the newest first: behind the job of this time and id."""

    created: float
    id: str


_COLUMNS = ", ".join(entry.name for entry in fields(Job))


class JobIndex:
    """See the module; safe to use from many threads and processes.

    Args:
        folder: where the index and the owners' lock files lie; made if it isn't there.

    Raises:
        VideosUnavailable: it can't be used now (as every method).
    """

    def __init__(self, folder: Path) -> None:
        self._owners = folder / ".owners"
        self._file = SqliteFile(folder / "jobs.sqlite3")
        try:
            self._owners.mkdir(parents=True, exist_ok=True)
            self.owner, self._lock = _locked_file(self._owners)
        except OSError as error:
            raise VideosUnavailable(
                "the folder of the video jobs can't be written", retry_after=RETRY_S
            ) from error
        self.callbacks = Callbacks(self._file, self.owner, self._is_dead)
        self.sources = Sources(self._file, self.owner, self._is_dead)
        self.keys = IdempotencyKeys(self._file, self.owner, self._is_dead)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    def _migrate(self) -> None:
        with self._file.writing() as connection:
            (number,) = connection.execute("PRAGMA user_version").fetchone()
            fault = schema_version.JOBS.fault(SchemaVersion.of(number))
            if fault is not None:
                raise VideosUnavailable(f"the index of the video jobs can't be used: {fault}")
            for statement in (*_SCHEMA.split(";"), callbacks.SCHEMA, sources.SCHEMA, idempotency.SCHEMA):
                connection.execute(statement)
            present = {row[1] for row in connection.execute("PRAGMA table_info(jobs)")}
            for name, kind in _ADDED.items():
                if name not in present:
                    connection.execute(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")
            idempotency.purge(connection, time.time())
            if number < schema_version.JOBS.number:  # a newer minor version stays
                connection.execute(f"PRAGMA user_version = {schema_version.JOBS.number}")

    def reserve(self) -> None:
        """Keep room for the changes that must work on a full disk, such as deleting."""
        self._file.reserve()

    def close(self) -> None:
        """Release the jobs that this owner still runs."""
        (self._owners / self.owner).unlink(missing_ok=True)
        self._lock.close()
        self._file.close()

    def add(
        self,
        job: Job,
        most_waiting: int,
        callback_url: str | None = None,
        source_url: str | None = None,
        digest: str | None = None,
    ) -> bool:
        """Add a new job, the URL that hears of its end, and the one of its video; False if the queue is full.

        `digest` is that of a submission whose Idempotency-Key is reserved for this job (see `keys`).

        Raises:
            IdempotencyKeyInUse: the key is no longer reserved for it.
        """
        with self._file.writing() as connection:
            (waiting,) = connection.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()
            if waiting >= most_waiting:
                return False
            marks = ", ".join("?" for _ in fields(Job))
            values = [getattr(job, entry.name) for entry in fields(Job)]
            connection.execute(f"INSERT INTO jobs ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608  # our own names
            if callback_url is not None:
                callbacks.TABLE.insert(connection, job.id, callback_url)
            if source_url is not None:
                sources.TABLE.insert(connection, job.id, source_url)
            if digest is not None:
                idempotency.settle(connection, job.id, digest)
            return True

    def get(self, job_id: str) -> Job | None:
        return next(iter(self._select("id = ? AND state != 'deleted'", job_id)), None)

    def newest(
        self,
        most: int,
        made_by: str | None = None,
        states: Sequence[str] = (),
        after: Position | None = None,
    ) -> list[Job]:
        """Jobs, the newest first: those that `made_by` made, or all; from the one after a position.

        `states`: queued, running, done, failed, or fetching, which are the queued ones whose videos aren't there yet;
        none: all.
        """
        conditions, values = ["state != 'deleted'"], list[Any]()
        if made_by is not None:
            conditions.append("made_by = ?")
            values.append(made_by)
        if states:
            marks = ", ".join("?" for _ in states)
            fetching = (
                f" OR (state = 'queued' AND id IN ({sources.UNFETCHED}))" if "fetching" in states else ""
            )
            conditions.append(f"(state IN ({marks}){fetching})")
            values += states
        if after is not None:
            conditions.append("created <= ? AND (created < ? OR id > ?)")
            values += [after.created, after.created, after.id]
        where = f"{' AND '.join(conditions)} ORDER BY created DESC, id LIMIT ?"
        return self._select(where, *values, most)

    def waiting_before(self, job: Job) -> int:
        """Number of queued jobs that come before this one."""
        return len(self._select("state = 'queued' AND (created, id) < (?, ?)", job.created, job.id))

    def counts(self) -> dict[str, int]:
        """Jobs by state; `fetching` are those of `queued` whose videos aren't there yet."""
        shown = f"CASE WHEN state = 'queued' AND id IN ({sources.UNFETCHED}) THEN 'fetching' ELSE state END"
        query = f"SELECT {shown} AS shown, count(*) FROM jobs GROUP BY shown"  # noqa: S608  # our own names
        with self._file.reading() as connection:
            return dict(connection.execute(query).fetchall())

    def input_bytes(self) -> int:
        """Bytes of the videos of all jobs that wait or run."""
        with self._file.reading() as connection:
            query = "SELECT coalesce(sum(bytes), 0) FROM jobs WHERE state IN ('queued', 'running')"
            (total,) = connection.execute(query).fetchone()
        return int(total)

    def ids(self) -> set[str]:
        """All jobs that the index knows, deleted ones too."""
        with self._file.reading() as connection:
            return {row[0] for row in connection.execute("SELECT id FROM jobs")}

    def alone(self) -> bool:
        """No other worker uses the folder now."""
        others = [path.name for path in self._owners.iterdir() if path.name != self.owner]
        return all(self._is_dead(other) for other in others)

    def claim(self, now: float) -> Job | None:
        """Take the oldest job that may run now, or one of a dead worker; return None if there is none."""
        with self._file.writing() as connection:
            rows = self._rows(
                connection,
                "state = 'running' OR (state = 'queued' AND not_before <= ? "
                f"AND id NOT IN ({sources.UNFETCHED})) ORDER BY created, id",
                now,
            )
            job = next((row for row in rows if row.state == "queued" or self._is_dead(row.owner)), None)
            if job is None:
                return None
            connection.execute(
                "UPDATE jobs SET state = 'running', owner = ?, started = coalesce(started, ?), "
                "attempts = attempts + 1, code = NULL, detail = NULL WHERE id = ?",
                (self.owner, now, job.id),
            )
            return self._rows(connection, "id = ?", job.id)[0]

    def progress(self, job_id: str, frames: int, expected: int | None, fraction: float | None) -> None:
        """Progress of a job of this owner."""
        self._update(job_id, frames=frames, expected=expected, fraction=fraction)

    def finish(
        self, job_id: str, state: str, now: float, kept_bytes: int, error: tuple[str, str] | None
    ) -> None:
        """Finish a job of this owner; `error` says why it failed, or where a partial result ends."""
        code, detail = error or (None, None)
        self._update(
            job_id, state=state, finished=now, kept_bytes=kept_bytes, code=code, detail=detail, owner=None
        )

    def keep(self, job_id: str, kept_bytes: int) -> None:
        """Record that the files of a finished job have grown to `kept_bytes`, whoever made them."""
        with self._file.writing() as connection:
            connection.execute(
                "UPDATE jobs SET kept_bytes = max(kept_bytes, ?) WHERE id = ? AND state IN ('done', 'failed')",
                (kept_bytes, job_id),
            )

    def put_back(
        self, job_id: str, not_before: float, code: str | None, detail: str | None, attempts: int
    ) -> None:
        """Put a job of this owner back into the queue; `attempts` counts its attempts so far."""
        self._update(
            job_id, state="queued", not_before=not_before, code=code, detail=detail, attempts=attempts, owner=None
        )  # fmt: skip

    def mark_deleted(self, job_id: str) -> Job | None:
        """Hide the job; return what it was before."""
        with self._file.writing() as connection:
            rows = self._rows(connection, "id = ? AND state != 'deleted'", job_id)
            if not rows:
                return None
            connection.execute("UPDATE jobs SET state = 'deleted' WHERE id = ?", (job_id,))
            idempotency.forget(connection, job_id)
            return rows[0]

    def removable(self) -> list[str]:
        """Deleted jobs that nobody runs any more."""
        return [
            job.id
            for job in self._select("state = 'deleted'")
            if job.owner is None or self._is_dead(job.owner)
        ]

    def is_deleted(self, job_id: str) -> bool:
        return not self._select("id = ? AND state != 'deleted'", job_id)

    def disown(self, job_id: str) -> None:
        """This owner no longer runs a deleted job."""
        with self._file.writing() as connection:
            connection.execute(
                "UPDATE jobs SET owner = NULL WHERE id = ? AND owner = ?", (job_id, self.owner)
            )

    def remove(self, job_id: str) -> None:
        """The job's files are gone; forget it."""
        with self._file.writing() as connection:
            connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            callbacks.TABLE.delete(connection, job_id)
            sources.TABLE.delete(connection, job_id)

    def expired(self, now: float, keep_s: float, keep_bytes: int) -> list[str]:
        """Finished jobs that are too old, or too much: the oldest first."""
        finished = self._select("state IN ('done', 'failed') ORDER BY finished DESC, id")
        total, ids = 0, []
        for job in finished:
            total += job.kept_bytes
            if total > keep_bytes or (job.finished or 0) < now - keep_s:
                ids.append(job.id)
        return ids

    def _update(self, job_id: str, **values: Any) -> None:
        """Update a job, only while this owner runs it and nobody deleted it."""
        names = ", ".join(f"{name} = ?" for name in values)
        with self._file.writing() as connection:
            connection.execute(
                f"UPDATE jobs SET {names} WHERE id = ? AND owner = ? AND state = 'running'",  # noqa: S608  # our own names
                (*values.values(), job_id, self.owner),
            )

    def _select(self, where: str, *values: Any) -> list[Job]:
        with self._file.reading() as connection:
            return self._rows(connection, where, *values)

    @staticmethod
    def _rows(connection: sqlite3.Connection, where: str, *values: Any) -> list[Job]:
        query = f"SELECT {_COLUMNS} FROM jobs WHERE {where}"  # noqa: S608  # our own names
        return [Job(*row) for row in connection.execute(query, values)]

    def _is_dead(self, owner: str | None) -> bool:
        """True if no process holds the owner's lock."""
        if owner is None:
            return True
        if owner == self.owner:
            return False
        path = self._owners / owner
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return True
        except OSError:  # held, or it can't be looked at now
            return False
        return True


def _locked_file(folder: Path) -> tuple[str, IO[bytes]]:
    """A new file of this worker, locked; its name says whose it is."""
    while True:
        name = uuid.uuid4().hex
        file = (folder / name).open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if (folder / name).exists():  # still there: no worker removed it before it was locked
            return name, file
        file.close()
