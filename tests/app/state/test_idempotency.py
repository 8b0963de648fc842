"""Idempotency keys of submissions: one job per key, whichever worker or restart sees the retry."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from support.paths import ROOT

from app.errors import IdempotencyKeyInUse, VideosUnavailable
from app.state.idempotency import Held
from app.state.jobs import Job, JobIndex


def job(name: str, made_by: str | None = None) -> Job:
    return Job(name, "queued", "v", "p", 1, "00", 0.0, made_by=made_by)


def _away(*_: object, **__: object) -> NoReturn:
    raise VideosUnavailable("the database is away")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[JobIndex]:
    opened = JobIndex.in_folder(tmp_path)
    yield opened
    opened.close()


def add(index: JobIndex, key: str, digest: str = "d", made_by: str | None = None) -> str:
    """Submit a job under a key; return its id."""
    held = index.keys.hold(made_by, key, 0.0, 100.0)
    assert held.digest is None
    assert index.add(job(held.job_id, made_by), 99, digest=digest)
    return held.job_id


def test_a_key_leads_to_its_job_for_the_job_s_life(index: JobIndex, tmp_path: Path) -> None:
    """Also in another worker and after a restart; a deleted job's key is new again."""
    first = add(index, "k")
    assert index.keys.hold(None, "k", 0.0, 100.0) == Held(first, "d")
    other = JobIndex.in_folder(tmp_path)
    assert other.keys.hold(None, "k", 1e12, 1e12) == Held(first, "d")
    other.mark_deleted(first)
    other.close()
    assert add(index, "k") != first


def test_a_reservation_that_cannot_be_ended_is_ended_later(
    index: JobIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that a request leaves without waiting; a retry needn't wait for the end of its time."""
    held = index.keys.hold(None, "k", 0.0, 100.0)
    with monkeypatch.context() as patch:
        patch.setattr(index.keys._database, "writing", _away)
        with pytest.raises(VideosUnavailable):
            index.keys.release(held.job_id)
        with pytest.raises(VideosUnavailable):
            index.keys.release_left()
    with pytest.raises(IdempotencyKeyInUse):
        index.keys.hold(None, "k", 1.0, 100.0)
    index.keys.release_left()
    again = index.keys.hold(None, "k", 1.0, 100.0)
    index.keys.leave(again.job_id)
    index.keys.release_left()
    assert index.keys.hold(None, "k", 2.0, 100.0).job_id not in (held.job_id, again.job_id)


def test_each_api_key_has_keys_of_its_own(index: JobIndex) -> None:
    """Two callers may choose the same word."""
    assert len({add(index, "k", made_by=name) for name in (None, "a", "b")}) == 3


def test_a_reserved_key_is_refused_until_it_is_released(index: JobIndex) -> None:
    """The second request is told to wait; after a release, or the end of the time, it may go on."""
    held = index.keys.hold(None, "k", 0.0, 100.0)
    with pytest.raises(IdempotencyKeyInUse) as refused:
        index.keys.hold(None, "k", 99.0, 200.0)
    assert refused.value.retry_after
    later = index.keys.hold(None, "k", 101.0, 200.0)
    with pytest.raises(IdempotencyKeyInUse):  # the first request comes too late, and adds no second job
        index.add(job(held.job_id), 99, digest="d")
    assert index.get(held.job_id) is None
    index.keys.release(held.job_id)  # not its own any more
    with pytest.raises(IdempotencyKeyInUse):
        index.keys.hold(None, "k", 102.0, 200.0)
    index.keys.release(later.job_id)
    add(index, "k")


def test_one_of_many_requests_at_once_gets_the_key(index: JobIndex) -> None:
    """The others are refused, whatever the order."""
    held: list[Held] = []
    refused: list[str] = []

    def hold() -> None:
        try:
            held.append(index.keys.hold("a", "k", 0.0, 100.0))
        except IdempotencyKeyInUse as error:
            refused.append(error.code)

    threads = [threading.Thread(target=hold) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)


_HOLD = """
import os, sys
from pathlib import Path
from app.state.jobs import JobIndex
JobIndex.in_folder(Path(sys.argv[1])).keys.hold(None, "k", 0.0, 1e12)
os.abort()
"""


def test_a_dead_worker_s_reservation_is_free_at_once(index: JobIndex, tmp_path: Path) -> None:
    """A crash in the middle of an upload doesn't block the retry."""
    subprocess.run(
        [sys.executable, "-c", _HOLD, str(tmp_path)], cwd=ROOT, check=False, stderr=subprocess.DEVNULL
    )
    add(index, "k")


def test_a_full_queue_leaves_the_key_reserved(index: JobIndex) -> None:
    """The request that holds it releases it with its own refusal."""
    held = index.keys.hold(None, "k", 0.0, 100.0)
    assert not index.add(job(held.job_id), 0, digest="d")
    index.keys.release(held.job_id)
    add(index, "k")


def test_what_is_left_over_goes_at_the_next_start(index: JobIndex, tmp_path: Path) -> None:
    """Keys whose jobs an older release removed, and reservations that are over."""
    gone = add(index, "old")
    index.keys.hold(None, "over", 0.0, 100.0)
    kept = add(index, "kept")
    with index._database.writing() as connection:
        connection.execute("DELETE FROM jobs WHERE id = ?", (gone,))
    JobIndex.in_folder(tmp_path).close()
    with index._database.reading() as connection:
        assert connection.execute("SELECT job_id FROM idempotency_keys").fetchall() == [(kept,)]
