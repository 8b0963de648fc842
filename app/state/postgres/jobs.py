"""The index of video jobs in PostgreSQL, with what belongs to it: workers' leases, and dispatch by procrastinate."""

from __future__ import annotations

import time
from functools import partial

from app.state import job_schema
from app.state.jobs import JobIndex
from app.state.postgres import dispatch, leases
from app.state.postgres.database import PostgresDatabase
from app.state.postgres.dispatch import PostgresDispatch
from app.state.postgres.leases import LeasedOwners


def open_jobs(url: str, lease_s: float) -> JobIndex:
    """Open the index, and make its tables if they aren't there.

    Args:
        url: `postgresql://user:password@host:port/database`.
        lease_s: a worker that is silent for so long is dead, and its jobs are run by others (seconds).

    Raises:
        VideosUnavailable: PostgreSQL is away, or another release has changed the tables.
    """
    database = PostgresDatabase(url)
    try:
        with database.writing(alone=True) as connection:
            connection.execute(leases.SCHEMA)
            dispatch.apply_schema(connection)
        job_schema.migrate(database)
        owners = LeasedOwners(database, lease_s)
        index = JobIndex(database, owners, PostgresDispatch(url, lease_s))
        owners.start(lambda: index.restore(time.time(), partial(dispatch.restore, lease_s=lease_s)))
    except BaseException:
        database.close()
        raise
    return index
