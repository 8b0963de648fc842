"""Words for what a Ray cluster says, without a cluster."""

from __future__ import annotations

import logging

import pytest
import ray

from app.bulk.executors.ray import cluster
from app.bulk.executors.ray.cluster import Needs, Unusable, connect


def test_a_cluster_that_lets_nobody_in_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray says the same of a wrong token as of no cluster, so the message names the token, too."""

    def refuse(address: str, **_: object) -> None:
        raise ConnectionError(f"Failed to connect to Ray cluster at {address}")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(Unusable, match=r"no Ray cluster at auto, .*RAY_AUTH_MODE=token.*: Failed to connect"):
        connect("auto", 1, Needs())


def test_only_deaths_that_the_run_did_not_cause_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A run kills the workers that it no longer needs, and Ray reports calls that this ends."""
    own = "Task NodeWorker.ready failed. Error: The actor is dead because it was killed by `ray.kill`.\n"
    with caplog.at_level(logging.WARNING):
        cluster._tell({"lines": [own, "The node with node id: 1 has been\n marked dead"]})
    assert caplog.messages == ["Ray: The node with node id: 1 has been marked dead"]
