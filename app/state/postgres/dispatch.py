"""Queued jobs on their way to a worker: tasks of procrastinate in the same database.

A task only says that a job can be run. Whether it is, the job's own row decides, with its state and its fence: a task
that comes twice, or too late, does nothing. A task that is lost is made again by `restore`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

import procrastinate
import psycopg
from procrastinate import exceptions
from procrastinate.schema import SchemaManager

from app.state.database import Connection
from app.state.postgres.database import CONNECTION, raw

_log = logging.getLogger(__name__)
_QUEUE = "video-jobs"
_TASK = "run_video"
_POLL_S = 2.0  # finds tasks whose notification was lost
_AGAIN_S = 1.0
_END_S = 1.0  # that a worker of procrastinate has for its end
_TIMEOUT_S = 3.0
_AWAY = (exceptions.ConnectorException, psycopg.Error, OSError, TimeoutError)


def apply_schema(connection: Connection) -> None:
    """Make the tables of procrastinate, if they aren't there, within a transaction that runs alone."""
    (there,) = connection.execute("SELECT to_regclass('procrastinate_jobs')").fetchone()
    if there is None:
        raw(connection).execute(SchemaManager.get_schema())


def restore(connection: Connection, wanted: str, lease_s: float) -> list[str]:
    """Return the ids of the jobs (of a SELECT) that no task is on its way for, and forget the tasks of dead workers."""
    connection.execute("SELECT procrastinate_prune_stalled_workers_v1(?)", (2 * lease_s,))
    connection.execute(
        "DELETE FROM procrastinate_jobs WHERE queue_name = ? AND status = 'doing' AND worker_id IS NULL",
        (_QUEUE,),
    )
    rows = connection.execute(
        f"SELECT id FROM ({wanted}) AS wanted WHERE NOT EXISTS (SELECT 1 FROM procrastinate_jobs "  # noqa: S608  # our own names
        "WHERE queueing_lock = wanted.id AND status IN ('todo', 'doing'))"
    )
    return [row[0] for row in rows]


class PostgresDispatch:
    """See `Dispatch`.

    Args:
        url: of the database.
        lease_s: a worker that is silent for so long is dead (seconds).
    """

    def __init__(self, url: str, lease_s: float) -> None:
        self._url = url
        self._lease_s = lease_s
        self._most = 0
        self._wake: Callable[[], None] = lambda: None
        self._deferring = procrastinate.App(connector=procrastinate.SyncPsycopgConnector())
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._offers: deque[tuple[str, asyncio.Future[None]]] = deque()
        self._taken: dict[str, asyncio.Future[None]] = {}
        self._session: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="video-dispatch", daemon=True)
        # It logs each error of a server that is away with all that led to it.
        logging.getLogger("procrastinate").setLevel(logging.CRITICAL)

    def defer(self, connection: Connection, job_id: str, at: float) -> None:
        when = datetime.fromtimestamp(at, UTC) if at else None
        actual = raw(connection)
        task = self._deferring.configure_task(
            _TASK, queue=_QUEUE, queueing_lock=job_id, schedule_at=when, connection=actual
        )
        with contextlib.suppress(exceptions.AlreadyEnqueued), actual.transaction():
            task.defer(job_id=job_id)

    def start(self, most: int, wake: Callable[[], None]) -> None:
        self._most, self._wake = most, wake
        self._thread.start()

    def take(self) -> str | None:
        while True:
            with self._lock:
                if not self._offers:
                    return None
                job_id, future = self._offers.popleft()
                if not future.done() and job_id not in self._taken:
                    self._taken[job_id] = future
                    return job_id
            self._end(future)  # a second offer of what runs here

    def release(self, job_id: str) -> None:
        with self._lock:
            future = self._taken.pop(job_id, None)
        if future is not None:
            self._end(future)

    def _end(self, future: asyncio.Future[None]) -> None:
        """End the task of an offer."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            future.get_loop().call_soon_threadsafe(self._over, future)

    def close(self) -> None:
        self._closing.set()
        with self._lock:
            loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._end_session)
        if self._thread.ident is not None:
            self._thread.join()

    def _over(self, future: asyncio.Future[None]) -> None:
        """On the loop: a job that was taken is over."""
        if not future.done():
            future.set_result(None)
        else:  # of an earlier session: the worker of this one may take one more
            self._end_session()

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.cancel()

    def _run(self) -> None:
        asyncio.run(self._sessions())

    async def _sessions(self) -> None:
        with self._lock:
            self._loop = asyncio.get_running_loop()
        while not self._closing.is_set():
            with self._lock:
                free = self._most - len(self._taken)
            if free > 0:
                self._session = asyncio.create_task(self._serve(free))
                if self._closing.is_set():
                    self._session.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._session
                self._session = None
            await asyncio.to_thread(self._closing.wait, _AGAIN_S)

    async def _serve(self, free: int) -> None:
        """Run a worker of procrastinate until the server is away, or the session is cancelled."""
        connector = procrastinate.PsycopgConnector(
            conninfo=self._url, kwargs={**CONNECTION}, min_size=1, max_size=3, timeout=_TIMEOUT_S,
            reconnect_timeout=_AGAIN_S, name="video-dispatch",
        )  # fmt: skip
        app = procrastinate.App(connector=connector)
        app.task(name=_TASK, queue=_QUEUE)(self._offer)
        try:
            async with app.open_async():
                await app.run_worker_async(
                    queues=[_QUEUE],
                    name="video-jobs",
                    concurrency=free,
                    install_signal_handlers=False,
                    fetch_job_polling_interval=_POLL_S,
                    delete_jobs="always",
                    update_heartbeat_interval=self._lease_s / 4,
                    stalled_worker_timeout=2 * self._lease_s,
                    shutdown_graceful_timeout=_END_S,
                )
        except _AWAY as error:
            _log.debug("the dispatch of video jobs waits for PostgreSQL: %s", error)
        except Exception:  # noqa: BLE001  # the thread must outlive whatever it meets
            _log.exception("the dispatch of video jobs failed; it is tried again")

    async def _offer(self, job_id: str) -> None:
        """The task: hand the job to a thread, and end with it."""
        future = asyncio.get_running_loop().create_future()
        with self._lock:
            self._offers.append((job_id, future))
        self._wake()
        await future
