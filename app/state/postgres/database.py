"""PostgreSQL as the database of the jobs."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, TypeVar, cast

import psycopg
from psycopg import ClientCursor
from psycopg_pool import ConnectionPool, PoolTimeout

from app.errors import VideosUnavailable
from app.state.database import Connection

RETRY_S = 2.0
_CONNECT_S, _STATEMENT_S, _LOCK_S, _IDLE_S = 3, 10, 5, 10
_ANSWER_S = _STATEMENT_S + 2.0  # a server that stops is waited for no longer
_AWAY_S = 1.0
_MOST_CONNECTIONS = 10
_LOCK_KEY = 0x67617465  # of the transactions that run alone
_AWAY = "PostgreSQL can't be reached, or doesn't answer in time"
HINT = "Retry after the time in Retry-After; the operator finds the cause in the log."
_SCHEMA = "CREATE TABLE IF NOT EXISTS schema_versions (name TEXT PRIMARY KEY, number BIGINT NOT NULL)"
_NAME = "video jobs"
_Result = TypeVar("_Result")

# No statement, no lock and no host that vanished holds up a thread; a worker that is suspended within a transaction
# loses it.
CONNECTION = {
    "connect_timeout": _CONNECT_S,
    "application_name": "triton-vision-gateway",
    "tcp_user_timeout": _STATEMENT_S * 1000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "options": f"-c statement_timeout={_STATEMENT_S}s -c lock_timeout={_LOCK_S}s "
    f"-c idle_in_transaction_session_timeout={_IDLE_S}s",
}


class _TimedConnection(psycopg.Connection[Any]):
    """A connection on which a server that stops in the middle of an answer is waited for no longer than a statement."""

    def wait(
        self, gen: Generator[Any, Any, _Result], interval: float = 0.1, timeout: float | None = None
    ) -> _Result:
        try:
            return super().wait(gen, interval, _ANSWER_S if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001  # what psycopg raises for `timeout`
            self.pgconn.finish()  # its state isn't known
            raise psycopg.OperationalError("no answer in time") from None


class _Placeholders:
    """A connection for statements with `?`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.raw = connection

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Any:
        cursor = ClientCursor(self.raw)  # values in the text: PostgreSQL knows their types from there
        text = statement.replace("?", "%s").encode()
        return cursor.execute(text, values or None)


def raw(connection: Connection) -> psycopg.Connection[Any]:
    """Return the connection of psycopg."""
    return cast(_Placeholders, connection).raw


class PostgresDatabase:
    """See `Database`. Nothing is connected before the first use.

    Args:
        url: `postgresql://user:password@host:port/database`.
    """

    def __init__(self, url: str) -> None:
        logging.getLogger("psycopg.pool").setLevel(
            logging.ERROR
        )  # every attempt that fails is a warning there
        self._pool = ConnectionPool(
            url,
            connection_class=_TimedConnection,
            kwargs=CONNECTION,
            min_size=0,
            max_size=_MOST_CONNECTIONS,
            timeout=_CONNECT_S,
            reconnect_timeout=RETRY_S,
            check=ConnectionPool.check_connection,
            open=False,
            name="video-jobs",
        )
        self._pool.open(wait=False)
        self._away_until = 0.0  # monotonic; no connection is asked for before

    def close(self) -> None:
        self._pool.close(timeout=_CONNECT_S)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._translated():
            if time.monotonic() < self._away_until:
                raise psycopg.OperationalError("it was away a moment ago")
            with self._pool.connection() as connection:
                yield _Placeholders(connection)

    @contextlib.contextmanager
    def writing(self, *, alone: bool = False) -> Iterator[Connection]:
        executed = False
        try:
            with self.reading() as connection:  # the pool's context ends it: commit, or on an error rollback
                if alone:
                    connection.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK_KEY,))
                yield connection
                executed = True
        except VideosUnavailable as error:
            error.commit_unknown = executed
            raise

    def columns(self, connection: Connection, table: str) -> set[str]:
        rows = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = ? AND table_schema = current_schema",
            (table,),
        )
        return {row[0] for row in rows}

    def version(self, connection: Connection) -> int:
        connection.execute(_SCHEMA)
        row = connection.execute("SELECT number FROM schema_versions WHERE name = ?", (_NAME,)).fetchone()
        return 0 if row is None else int(row[0])

    def set_version(self, connection: Connection, number: int) -> None:
        connection.execute(
            "INSERT INTO schema_versions (name, number) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET number = excluded.number",
            (_NAME, number),
        )

    def reserve(self) -> None:
        """Nothing: the disk is the server's."""

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:  # those of the pool are, too
            if isinstance(error, PoolTimeout):  # so that only one caller at a time waits for it
                self._away_until = time.monotonic() + _AWAY_S
            raise VideosUnavailable(_AWAY, retry_after=RETRY_S, hint=HINT) from error
