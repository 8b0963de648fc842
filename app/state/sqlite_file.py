"""A SQLite file that a full disk leaves readable, and small changes possible.

The journal is a rollback journal that stays on the disk (PERSIST): a reader makes no file, and a writer has its room
already. WAL would make two files for whoever opens the database. `reserve` keeps free pages in both files. A descriptor
is kept for the journal, which SQLite opens each time, so that a process without any other reads and writes as well.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from app.errors import VideosUnavailable
from app.state.database import Connection

RETRY_S = 10.0
_SPARE_PAGES = 16
_FULL, _CANNOT_OPEN, _BUSY, _LOCKED = 13, 14, 5, 6
_WORDS = {
    _FULL: "the disk of the video jobs is full",
    _CANNOT_OPEN: "the index of the video jobs can't be opened",
    _BUSY: "the index of the video jobs is busy",
    _LOCKED: "the index of the video jobs is busy",
}
_RESERVE = """
CREATE TABLE IF NOT EXISTS reserve (id INTEGER PRIMARY KEY, room BLOB);
DELETE FROM reserve
"""


class SqliteFile:
    """One connection to one file, shared by the threads of this process; other processes have their own.

    Every method raises VideosUnavailable where the file can't be used now; the cause of the exception is SQLite's.

    Args:
        path: of the file.
        check: called before each use; it raises VideosUnavailable where this process may not use the file.
    """

    def __init__(self, path: Path, check: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._check = check
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._spare: int | None = None

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            self._give_spare()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone."""
        self._check()
        with self._lock, self._translated():
            self._give_spare()
            try:
                yield self._opened()
            finally:
                self._take_spare()

    @contextlib.contextmanager
    def writing(self, *, alone: bool = True) -> Iterator[sqlite3.Connection]:  # noqa: ARG002  # SQLite has no others
        """One transaction; it waits for those of other processes."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    def columns(self, connection: Connection, table: str) -> set[str]:
        """Return the names of a table's columns."""
        return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}

    def version(self, connection: Connection) -> int:
        """Return the number of the schema's version; 0 for a new file."""
        return int(connection.execute("PRAGMA user_version").fetchone()[0])

    def set_version(self, connection: Connection, number: int) -> None:
        connection.execute(f"PRAGMA user_version = {number}")

    def reserve(self) -> None:
        """Keep room for small changes while the disk isn't full: free pages in the file, and a journal of that size."""
        with self.reading() as connection:
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            (page,) = connection.execute("PRAGMA page_size").fetchone()
        if free >= _SPARE_PAGES // 2 and self._journal_bytes() >= page * _SPARE_PAGES // 2:
            return
        with self.writing() as connection:
            for statement in _RESERVE.split(";"):
                connection.execute(statement)
            rows = [(page - 600,)] * (2 * _SPARE_PAGES)  # a page each
            connection.executemany("INSERT INTO reserve (room) VALUES (zeroblob(?))", rows)
        with self.writing() as connection:  # every page of the table goes through the journal
            connection.execute("UPDATE reserve SET room = zeroblob(?)", (page - 599,))
        with self.writing() as connection:
            connection.execute("DELETE FROM reserve")

    def _give_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
        self._spare = None

    def _take_spare(self) -> None:
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _journal_bytes(self) -> int:
        try:
            return self._path.with_name(f"{self._path.name}-journal").stat().st_size
        except OSError:
            return 0

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self._path, timeout=10, isolation_level=None, check_same_thread=False
            )
            self._connection = connection
            connection.execute("PRAGMA secure_delete = ON").fetchall()  # URLs may hold secrets
            with contextlib.suppress(sqlite3.OperationalError):  # an older version has it open: WAL for now
                connection.execute("PRAGMA journal_mode = PERSIST").fetchall()
        return self._connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # defects of ours
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code not in _WORDS:
                self.close()
            words = _WORDS.get(code, "the index of the video jobs can't be read or written")
            raise VideosUnavailable(words, retry_after=RETRY_S) from error
