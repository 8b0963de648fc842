"""`gateway bulk --on ray` over a bucket, whose worker, node and driver are killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.analyze_command import ENVIRONMENT
from support.on_ray.crash import BUCKET, Run, crash
from support.servers.s3 import S3Server

VIDEOS = 24


@pytest.fixture
def run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A bucket with videos, and an environment in which this process's children find it."""
    with S3Server() as server:
        for name, value in {**ENVIRONMENT, **server.environment}.items():
            monkeypatch.setenv(name, value)
        server.bucket(BUCKET)
        made = Run(repository, tmp_path, server)
        made.make_videos(VIDEOS)
        yield made


def test_nothing_is_lost_or_done_twice_when_all_parts_are_killed(run: Run) -> None:
    """Each video has one manifest, published once, with the arrays of an undisturbed run, to the bit."""
    straight = run.straight()
    crashed = crash(run, VIDEOS)
    assert crashed.exit_code == 0, crashed.stderr
    assert run.digests() == straight
    assert sorted(crashed.published) == sorted({name.rpartition(".mp4/")[0] + ".mp4" for name in straight})
    assert set(crashed.published.values()) == {1}
    assert max(row["attempts"] for row in crashed.rows) <= 3 + 1
    assert {row["state"] for row in crashed.rows} <= {"done", "skipped"}
    assert len([json.loads(line) for line in crashed.stdout.splitlines()]) == VIDEOS
