"""The interfaces behind the tables of the jobs: a database (SQLite or PostgreSQL), the workers, and the dispatch.

Statements have `?` for values, and are written so that both databases take them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """Number of the rows that were changed."""

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection within a transaction."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor: ...


class Database(Protocol):
    """Safe to use from many threads. Every method raises VideosUnavailable where the database can't be used now."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Context manager of a connection that only reads."""

    def writing(self, *, alone: bool = False) -> AbstractContextManager[Connection]:
        """Context manager of one transaction; with `alone`, no other one of those runs at the same time.

        Raises:
            VideosUnavailable: with `commit_unknown` if only the answer to the commit got lost.
        """

    def columns(self, connection: Connection, table: str) -> set[str]:
        """Return the names of a table's columns."""

    def version(self, connection: Connection) -> int:
        """Return the number of the schema's version; 0 for a new database."""

    def set_version(self, connection: Connection, number: int) -> None: ...

    def reserve(self) -> None:
        """Keep room for the changes that must work on a full disk, where the disk is this host's."""

    def close(self) -> None: ...


class Owners(Protocol):
    """The workers that share the database, as this one sees them. A row of a dead one is free again."""

    @property
    def name(self) -> str:
        """The name of this worker."""

    def is_dead(self, connection: Connection, owner: str | None) -> bool:
        """Return True for a worker that is gone, and for None."""

    def alone(self) -> bool:
        """Return True if no other worker lives."""

    def close(self) -> None:
        """Let the others take what this worker owns."""


class Dispatch(Protocol):
    """Brings queued jobs to workers: a task queue in the same database."""

    def defer(self, connection: Connection, job_id: str, at: float) -> None:
        """Offer a job to all workers from a time on (s since 1970), if the transaction succeeds."""

    def take(self) -> str | None:
        """Return the id of a job that is offered to this worker; None if there is none."""

    def release(self, job_id: str) -> None:
        """The worker is done with what it took."""

    def start(self, most: int, wake: Callable[[], None]) -> None:
        """Accept up to `most` jobs at a time; `wake` is called for each offer."""

    def close(self) -> None: ...
