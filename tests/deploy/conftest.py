"""Fixtures that the tests of dashboards and of rules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.servers.observed import Observed
from support.servers.observed import observed as observe


@pytest.fixture(scope="module")
def observed(all_families: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """A real Prometheus over a real gateway and a real Triton that have seen every kind of request."""
    with observe(all_families, tmp_path_factory.mktemp("observed")) as seen:
        yield seen
