"""Servers that tests of several rooms start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.servers.redis_server import RedisServer


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """Empty, running, and of this test alone."""
    with RedisServer(tmp_path / "redis") as server:
        yield server
