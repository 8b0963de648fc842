"""The index of video jobs: a table that all workers share, in SQLite on one host or in PostgreSQL on several.

Every claim gives the job the next number of its fence, and every later change by the worker is made only while the job
still has that number: a worker that was taken for dead, and goes on, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from app.errors import VideosUnavailable
from app.state import callbacks, idempotency, sources
from app.state.callbacks import Callbacks
from app.state.database import Connection, Database, Dispatch, Owners
from app.state.host_mark import HostMark
from app.state.idempotency import IdempotencyKeys
from app.state.job_schema import INDEX, migrate
from app.state.owners import LockedOwners
from app.state.sources import Sources
from app.state.sqlite_file import RETRY_S, SqliteFile

FINISHED = ("done", "failed")


@dataclass(frozen=True, slots=True)
class Job:
    """One row. `state`: queued, running, done, failed, or deleted (its files are about to go).

    Times in seconds since 1970; `code` and `detail` say what failed, what a queued job waits for, or where a partial
    result breaks off. `owner` is the worker that runs it, `made_by` the name of the API key that made it (None: made
    without keys). `fence` counts the claims, and names the one whose results are visible; `manifest_sha256` is that
    of their manifest in hex.
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
    fence: int = 0
    manifest_sha256: str | None = None

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
_QUEUED = f"state = 'queued' AND not_before <= %s AND id NOT IN ({sources.UNFETCHED})"
_MAY_RUN = f"state = 'running' OR ({_QUEUED % '?'})"


class JobIndex:
    """See the module; safe to use from many threads and processes. Every method raises VideosUnavailable where the
    database can't be used now.

    Args:
        database: with the tables of `job_schema`.
        owners: the workers that share it. Both are closed by `close`, and so is the dispatch.
        dispatch: brings the jobs to the workers; None: a worker that asks finds them in the table.
    """

    def __init__(self, database: Database, owners: Owners, dispatch: Dispatch | None = None) -> None:
        self._database = database
        self._owners = owners
        self._dispatch = dispatch
        self.callbacks = Callbacks(database, owners)
        self.sources = Sources(database, owners, self._defer)
        self.keys = IdempotencyKeys(database, owners)

    @classmethod
    def in_folder(cls, folder: Path) -> JobIndex:
        """Open the index that the workers of one host share in a folder; made if it isn't there.

        Raises:
            VideosUnavailable: it can't be used now.
        """
        mark = HostMark(folder)
        try:
            owners = LockedOwners(folder / ".owners", mark)
        except OSError as error:
            raise VideosUnavailable(
                "the folder of the video jobs can't be written", retry_after=RETRY_S
            ) from error
        index = cls(SqliteFile(folder / INDEX, mark.check), owners)
        try:
            migrate(index._database)
        except BaseException:
            index.close()
            raise
        return index

    def start(self, most: int, wake: Callable[[], None]) -> None:
        """Run up to `most` jobs at a time: `wake` is called when there may be one to claim."""
        if self._dispatch is not None:
            self._dispatch.start(most, wake)

    def reserve(self) -> None:
        """Keep room for the changes that must work on a full disk, such as deleting."""
        self._database.reserve()

    def close(self) -> None:
        """Release the jobs that this owner still runs."""
        if self._dispatch is not None:
            self._dispatch.close()
        self._owners.close()
        self._database.close()

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
        with self._database.writing(alone=True) as connection:
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
            if source_url is None:
                self._defer(connection, job.id)
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
        with self._database.reading() as connection:
            return dict(connection.execute(query).fetchall())

    def input_bytes(self) -> int:
        """Bytes of the videos of all jobs that wait or run."""
        with self._database.reading() as connection:
            query = "SELECT coalesce(sum(bytes), 0) FROM jobs WHERE state IN ('queued', 'running')"
            (total,) = connection.execute(query).fetchone()
        return int(total)

    def ids(self) -> set[str]:
        """All jobs that the index knows, deleted ones too."""
        with self._database.reading() as connection:
            return {row[0] for row in connection.execute("SELECT id FROM jobs")}

    def alone(self) -> bool:
        """No other worker uses the index now."""
        return self._owners.alone()

    def claim(self, now: float) -> Job | None:
        """Take the oldest job that may run now, or one of a dead worker; return None if there is none.

        With a dispatch it is one that was offered to this worker. `release` is called once it is over.
        """
        if self._dispatch is None:
            return self._claim(now)
        while (job_id := self._dispatch.take()) is not None:
            try:
                job = self._claim(now, job_id)
            except BaseException:
                self._dispatch.release(job_id)
                raise
            if job is not None:
                return job
            self._dispatch.release(job_id)  # somebody else has it, or it waits for something
        return None

    def release(self, job_id: str) -> None:
        """The worker is done with a job that it claimed."""
        if self._dispatch is not None:
            self._dispatch.release(job_id)

    def _claim(self, now: float, only: str | None = None) -> Job | None:
        named, values = ("", []) if only is None else (" AND id = ?", [only])
        with self._database.writing() as connection:
            rows = self._rows(connection, f"({_MAY_RUN}){named} ORDER BY created, id", now, *values)
            for row in rows:
                if row.state == "running" and not self._owners.is_dead(connection, row.owner):
                    continue
                claimed = connection.execute(
                    "UPDATE jobs SET state = 'running', owner = ?, started = coalesce(started, ?), fence = fence + 1, "
                    "attempts = attempts + 1, code = NULL, detail = NULL WHERE id = ? AND state = ? AND fence = ?",
                    (self._owners.name, now, row.id, row.state, row.fence),
                ).rowcount
                if claimed:
                    return self._rows(connection, "id = ?", row.id)[0]
        return None

    def restore(self, now: float, lost: Callable[[Connection, str], list[str]]) -> None:
        """Offer the jobs again of which no offer is on its way (see `lost`), and those of dead workers."""
        with self._database.writing() as connection:
            running = self._rows(connection, "state = 'running'")
            ids = [row.id for row in running if self._owners.is_dead(connection, row.owner)]
            waiting = f"SELECT id FROM jobs WHERE {_QUEUED % repr(float(now))}"  # noqa: S608  # our own names
            for job_id in (*ids, *lost(connection, waiting)):
                self._defer(connection, job_id)

    def _defer(self, connection: Connection, job_id: str, at: float = 0.0) -> None:
        if self._dispatch is not None:
            self._dispatch.defer(connection, job_id, at)

    def holds(self, job: Job) -> bool:
        """Return True while this worker runs a job that it claimed."""
        return bool(
            self._select("id = ? AND owner = ? AND fence = ? AND state = 'running'", *self._claimed(job))
        )

    def progress(self, job: Job, frames: int, expected: int | None, fraction: float | None) -> bool:
        """Record the progress of a job of this owner; return False if it is its own no more."""
        return self._update(job, frames=frames, expected=expected, fraction=fraction)

    def finish(
        self,
        job: Job,
        state: str,
        now: float,
        kept_bytes: int,
        error: tuple[str, str] | None,
        manifest_sha256: str | None = None,
        frames: int | None = None,
    ) -> bool:
        """Finish a job of this owner; `error` says why it failed, or where a partial result ends.

        `manifest_sha256` and `frames` are those of the manifest of a result. Return False if it isn't this owner's job
        any more; a repeated call returns the same.
        """
        code, detail = error or (None, None)
        counted = {} if frames is None else {"frames": frames, "expected": frames, "fraction": 1.0}
        done = self._update(
            job, state=state, finished=now, kept_bytes=kept_bytes, code=code, detail=detail, owner=None,
            manifest_sha256=manifest_sha256, **counted,
        )  # fmt: skip
        return done or bool(
            self._select("id = ? AND fence = ? AND state = ? AND owner IS NULL", job.id, job.fence, state)
        )

    def keep(self, job_id: str, kept_bytes: int) -> None:
        """Record that the files of a finished job have grown to `kept_bytes`, whoever made them."""
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE jobs SET kept_bytes = ? WHERE id = ? AND kept_bytes < ? AND state IN ('done', 'failed')",
                (kept_bytes, job_id, kept_bytes),
            )

    def put_back(
        self, job: Job, not_before: float, code: str | None, detail: str | None, attempts: int
    ) -> bool:
        """Put a job of this owner back into the queue; `attempts` counts its attempts so far."""
        values = {
            "state": "queued", "not_before": not_before, "code": code, "detail": detail, "attempts": attempts,
            "owner": None,
        }  # fmt: skip
        with self._database.writing() as connection:
            put = self._change(connection, job, values)
            if put:
                self._defer(connection, job.id, not_before)
        return put

    def mark_deleted(self, job_id: str) -> Job | None:
        """Hide the job; return what it was before."""
        with self._database.writing() as connection:
            rows = self._rows(connection, "id = ? AND state != 'deleted'", job_id)
            if not rows:
                return None
            connection.execute("UPDATE jobs SET state = 'deleted' WHERE id = ?", (job_id,))  # its owner stays
            idempotency.forget(connection, job_id)
            return rows[0]

    def removable(self) -> list[str]:
        """Deleted jobs that nobody runs any more."""
        with self._database.reading() as connection:
            deleted = self._rows(connection, "state = 'deleted'")
            return [job.id for job in deleted if self._owners.is_dead(connection, job.owner)]

    def is_deleted(self, job_id: str) -> bool:
        return not self._select("id = ? AND state != 'deleted'", job_id)

    def disown(self, job_id: str) -> None:
        """This owner no longer runs a deleted job."""
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE jobs SET owner = NULL WHERE id = ? AND owner = ?", (job_id, self._owners.name)
            )

    def remove(self, job_id: str) -> None:
        """The job's files are gone; forget it."""
        with self._database.writing() as connection:
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

    def _update(self, job: Job, **values: Any) -> bool:
        """Update a job, only while this owner runs it and nobody deleted it; return whether that is so."""
        with self._database.writing() as connection:
            return self._change(connection, job, values)

    def _change(self, connection: Connection, job: Job, values: Mapping[str, Any]) -> bool:
        names = ", ".join(f"{name} = ?" for name in values)
        changed = connection.execute(
            f"UPDATE jobs SET {names} WHERE id = ? AND owner = ? AND fence = ? AND state = 'running'",  # noqa: S608  # our own names
            (*values.values(), *self._claimed(job)),
        ).rowcount
        return bool(changed)

    def _claimed(self, job: Job) -> tuple[str, str, int]:
        return job.id, self._owners.name, job.fence

    def _select(self, where: str, *values: Any) -> list[Job]:
        with self._database.reading() as connection:
            return self._rows(connection, where, *values)

    @staticmethod
    def _rows(connection: Connection, where: str, *values: Any) -> list[Job]:
        query = f"SELECT {_COLUMNS} FROM jobs WHERE {where}"  # noqa: S608  # our own names
        return [Job(*row) for row in connection.execute(query, values)]
