"""A gateway on the embedded engine over the test repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support.servers.gateway import client


@pytest.fixture(scope="module")
def gateway(repository: Path) -> Iterator[TestClient]:
    """Ready; embedded; variant n."""
    with client(repository) as test_client:
        yield test_client
