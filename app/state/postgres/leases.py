"""Workers on several hosts: each says regularly that it lives, and one that doesn't for the time of a lease is dead.

All times are those of the server's clock.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable

from app.errors import VideosUnavailable
from app.state.database import Connection
from app.state.postgres.database import PostgresDatabase

SCHEMA = "CREATE TABLE IF NOT EXISTS workers (id TEXT PRIMARY KEY, heartbeat TIMESTAMPTZ NOT NULL)"
_FORGET_S = 86400.0
# A server that was away counts nobody as dead before all had the time to say that they live.
_LIVING = "greatest(heartbeat, pg_postmaster_start_time()) > clock_timestamp() - make_interval(secs => ?)"


class LeasedOwners:
    """See `Owners`. `start` once the table is there.

    Args:
        database: with the table.
        lease_s: seconds.
    """

    def __init__(self, database: PostgresDatabase, lease_s: float) -> None:
        self.name = uuid.uuid4().hex
        self._database = database
        self._lease_s = lease_s
        self._pause_s = lease_s / 4
        self._steady_since: float | None = None  # no heartbeat has failed since (monotonic)
        self._failed = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._live, name="video-lease", daemon=True)
        self._look: Callable[[], None] = lambda: None

    def start(self, look: Callable[[], None]) -> None:
        """Begin to live. `look` is called after every heartbeat; it may raise VideosUnavailable.

        Raises:
            VideosUnavailable: the first heartbeat failed.
        """
        self._look = look
        self._beat()
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()
        with contextlib.suppress(VideosUnavailable), self._database.writing() as connection:
            connection.execute("DELETE FROM workers WHERE id = ?", (self.name,))

    def alone(self) -> bool:
        with self._database.reading() as connection:
            query = f"SELECT count(*) FROM workers WHERE id != ? AND {_LIVING}"  # noqa: S608  # our own names
            (others,) = connection.execute(query, (self.name, self._lease_s)).fetchone()
        return bool(others == 0)

    def is_dead(self, connection: Connection, owner: str | None) -> bool:
        if owner is None:
            return True
        if owner == self.name or not self._is_steady():
            return False
        query = f"SELECT count(*) FROM workers WHERE id = ? AND {_LIVING}"  # noqa: S608  # our own names
        (living,) = connection.execute(query, (owner, self._lease_s)).fetchone()
        return bool(living == 0)

    def _is_steady(self) -> bool:
        """Return False where this worker had lost the server itself, and others may have, too."""
        since = self._steady_since
        return since is not None and (not self._failed or time.monotonic() - since > self._lease_s)

    def _live(self) -> None:
        while not self._closing.wait(self._pause_s):
            try:
                self._beat()
                self._look()
            except VideosUnavailable:
                pass  # the jobs' threads say so

    def _beat(self) -> None:
        try:
            with self._database.writing() as connection:
                connection.execute(
                    "INSERT INTO workers (id, heartbeat) VALUES (?, clock_timestamp()) "
                    "ON CONFLICT (id) DO UPDATE SET heartbeat = excluded.heartbeat",
                    (self.name,),
                )
                connection.execute(
                    "DELETE FROM workers WHERE heartbeat < clock_timestamp() - make_interval(secs => ?)",
                    (_FORGET_S,),
                )
        except VideosUnavailable:
            self._failed, self._steady_since = True, None
            raise
        if self._steady_since is None:
            self._steady_since = time.monotonic()
