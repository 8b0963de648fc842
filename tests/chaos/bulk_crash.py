"""A bulk run over a bucket on two Ray nodes, whose worker, node and driver are killed in turn.

    make chaos CHAOS=bulk_crash CHAOS_ARGS='--videos 200'

A second driver finishes what the first one left. Every video has then one manifest, published once, and the arrays of
an undisturbed run to the bit; no video was tried more often than the number of kills plus one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from support.analyze_command import ENVIRONMENT
from support.models import repository
from support.on_ray.crash import BUCKET, Run, crash
from support.servers.s3 import S3Server

from benchmarks.common.services import variables

KILLS = 3


def main() -> int:
    """Run it; 1 if anything was lost, done twice, or differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=200)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        S3Server() as server,
        variables({**ENVIRONMENT, **server.environment}),
    ):
        server.bucket(BUCKET)
        run = Run(repository.build(Path(folder) / "models"), Path(folder), server)
        run.make_videos(given.videos)
        straight = run.straight()
        crashed = crash(run, given.videos)
        digests = run.digests()
    rows = {
        "videos": given.videos,
        "exit code": crashed.exit_code,
        "manifests": len(crashed.published),
        "published more than once": sum(number > 1 for number in crashed.published.values()),
        "arrays that differ": sum(digests.get(name) != digest for name, digest in straight.items()),
        "most attempts": max(row["attempts"] for row in crashed.rows),
        "states": Counter(row["state"] for row in crashed.rows),
    }
    print(json.dumps(rows, indent=1))
    right = (0, given.videos, 0, 0)
    found = tuple(
        rows[name] for name in ("exit code", "manifests", "published more than once", "arrays that differ")
    )
    return 0 if found == right and rows["most attempts"] <= KILLS + 1 else 1


if __name__ == "__main__":
    sys.exit(main())
