"""Three gateways over two Tritons, Redis, PostgreSQL and a bucket: each part is killed in turn, again and again.

    make chaos CHAOS=cluster CHAOS_ARGS='--rounds 3'

Each gateway and each Triton is on a host of its own: a network namespace with a `/dev/shm` of its own (this needs root;
without, they are processes of this machine). HAProxy makes no second try. Frames, sessions with several frames in
flight, and video jobs are sent, about 25 requests per second. One branch has other weights on each Triton, and its
answers tell which: none may name weights that it wasn't made with. It prints figures; a promise that is broken makes
it fail (docs/replicas.md).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from support.cluster.deeds import Deeds
from support.cluster.scenario import play
from support.cluster.service import cluster
from support.cluster.verdict import broken_promises, figures

GATEWAYS, TRITONS = 3, 2


async def rounds(deeds: Deeds, count: int) -> None:
    """Do everything to every part, so many times."""
    for _ in range(count):
        for number in range(GATEWAYS):
            await deeds.gateway(number)
        for number in range(TRITONS):
            await deeds.triton(number)
        await deeds.redis()
        await deeds.postgres()
        await deeds.maintenance(0)
        await deeds.reload()
        await deeds.balancer()


def main() -> int:
    """Run, print the figures, and return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1, help="so many times each part is killed")
    count = parser.parse_args().rounds
    with cluster(GATEWAYS, TRITONS) as whole:
        found = figures(asyncio.run(play(whole, lambda deeds: rounds(deeds, count))))
        found = {"hosts are isolated": whole.network.isolated, **found}
    print(json.dumps(found, indent=1))
    broken = broken_promises(found)
    for name, shown in broken.items():
        print(f"! {name}: {shown}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
