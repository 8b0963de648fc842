"""Stores over a real folder and a real bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.servers.s3 import S3Server, reachable

from app.videos.stores.base import ArtifactStore
from app.videos.stores.opened import open_store


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """An S3 server for the tests of a module."""
    with S3Server() as running:
        running.bucket("things")
        yield running


@pytest.fixture(scope="module")
def s3(server: S3Server) -> Iterator[S3Server]:
    """The server, which this process finds by the usual variables."""
    with reachable(server) as found:
        yield found


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """Each kind of store, empty."""
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    request.getfixturevalue("s3")
    return open_store(f"s3://things/{tmp_path.name}")
