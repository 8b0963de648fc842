"""Indexes of video jobs for tests."""

from __future__ import annotations

from collections.abc import Callable

from app.state import job_schema
from app.state.jobs import JobIndex
from app.state.postgres import leases
from app.state.postgres.database import PostgresDatabase
from app.state.postgres.leases import LeasedOwners

OpenIndex = Callable[[], JobIndex]
"""Opens the same index as another worker."""


def in_postgres(url: str, lease_s: float = 600.0) -> JobIndex:
    """Open an index whose workers find jobs in the table, as those in SQLite do, so that tests know who gets what."""
    database = PostgresDatabase(url)
    with database.writing(alone=True) as connection:
        connection.execute(leases.SCHEMA)
    job_schema.migrate(database)
    owners = LeasedOwners(database, lease_s)
    index = JobIndex(database, owners)
    owners.start(lambda: None)
    return index
