"""Parts of a service of three gateways and two Tritons are killed under load, one after the other."""

from __future__ import annotations

import asyncio

import pytest
from support.cluster.deeds import Deeds
from support.cluster.scenario import play
from support.cluster.service import cluster
from support.cluster.verdict import broken_promises, figures

pytestmark = pytest.mark.triton
_REFUSED = 0.02  # of the requests, by a machine that others use, too


async def _each_part(deeds: Deeds) -> None:
    await deeds.gateway(0)
    await deeds.triton(1)
    await deeds.maintenance(1)
    await deeds.postgres()
    await deeds.reload()
    await deeds.redis()
    await deeds.balancer()


def test_each_part_is_killed_in_turn() -> None:
    """No answer is wrong or names other weights, no session breaks, no job is lost or done twice, and only what the
    killed part was doing fails.
    """
    with cluster() as whole:
        found = figures(asyncio.run(play(whole, _each_part)))
    assert broken_promises(found, int(found["requests"] * _REFUSED)) == {}, found
    assert set(found["answers by version of the branch with two"]) == {"1", "2"}
    assert found["frames of sessions answered"] > 0
    assert found["jobs accepted"] > 0
    assert found["artefacts of all jobs compared"]
