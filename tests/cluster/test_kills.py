"""Parts of a service of three gateways are killed under load, one after the other."""

from __future__ import annotations

import asyncio

import pytest
from support.cluster.deeds import Deeds
from support.cluster.scenario import play
from support.cluster.service import cluster
from support.cluster.verdict import broken_promises, figures

pytestmark = pytest.mark.triton


async def _each_part(deeds: Deeds) -> None:
    await deeds.gateway(0)
    await deeds.maintenance(1)
    await deeds.reload()
    await deeds.redis()
    await deeds.balancer()


def test_each_part_is_killed_in_turn() -> None:
    """No answer is wrong, no session breaks, and only what the killed part was doing fails."""
    with cluster() as whole:
        found = figures(asyncio.run(play(whole, _each_part)))
    assert broken_promises(found) == {}, found
    assert found["right answers to single frames"] > 0
    assert found["frames of sessions answered"] > 0
