"""The stores that keep the same contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.databases.indexes import OpenIndex, in_postgres
from support.databases.postgres import PostgresServer

from app.state.jobs import JobIndex


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def open_index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenIndex]:
    """Opens the same index as another worker; all are closed at the end."""
    if request.param == "sqlite":
        opener = partial(JobIndex.in_folder, tmp_path)
    else:
        opener = partial(in_postgres, request.getfixturevalue("postgres").database())
    with contextlib.ExitStack() as stack:

        def build() -> JobIndex:
            index = opener()
            stack.callback(index.close)
            return index

        yield build
