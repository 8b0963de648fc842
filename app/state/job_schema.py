"""The tables of the jobs' database, and their changes over the releases."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

from app.errors import VideosUnavailable
from app.state import callbacks, idempotency, schema_version, sources
from app.state.database import Database
from app.state.schema_version import SchemaVersion

_JOBS = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    name TEXT NOT NULL,
    profile TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL,
    started DOUBLE PRECISION,
    finished DOUBLE PRECISION,
    frames BIGINT NOT NULL DEFAULT 0,
    expected BIGINT,
    fraction DOUBLE PRECISION,
    attempts BIGINT NOT NULL DEFAULT 0,
    not_before DOUBLE PRECISION NOT NULL DEFAULT 0,
    code TEXT,
    detail TEXT,
    owner TEXT,
    kept_bytes BIGINT NOT NULL DEFAULT 0,
    made_by TEXT,
    fence BIGINT NOT NULL DEFAULT 0,
    manifest_sha256 TEXT
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);
CREATE INDEX IF NOT EXISTS jobs_by_age ON jobs (created DESC, id)
"""
# Columns that earlier versions did not have.
_ADDED = {"made_by": "TEXT", "fence": "BIGINT NOT NULL DEFAULT 0", "manifest_sha256": "TEXT"}

_STATEMENTS = (*_JOBS.split(";"), callbacks.SCHEMA, sources.SCHEMA, idempotency.SCHEMA)


INDEX = "jobs.sqlite3"  # in the folder of the jobs


def fault_of(path: Path) -> str | None:
    """Return why this release can't use an index in SQLite; None if it can, or if there is none that can be read."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as connection:
            (number,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error:
        return None
    return schema_version.JOBS.fault(SchemaVersion.of(number))


def migrate(database: Database) -> None:
    """Make what isn't there yet.

    Raises:
        VideosUnavailable: another release has changed the tables beyond what this one knows.
    """
    with database.writing(alone=True) as connection:
        number = database.version(connection)
        fault = schema_version.JOBS.fault(SchemaVersion.of(number))
        if fault is not None:
            raise VideosUnavailable(f"the index of the video jobs can't be used: {fault}")
        for statement in _STATEMENTS:
            connection.execute(statement)
        present = database.columns(connection, "jobs")
        for name, kind in _ADDED.items():
            if name not in present:
                connection.execute(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")
        idempotency.purge(connection, time.time())
        if number < schema_version.JOBS.number:  # a newer minor version stays
            database.set_version(connection, schema_version.JOBS.number)
