"""Webhooks, sources and idempotency keys of jobs: one worker has each, in every store."""

from __future__ import annotations

import threading
from dataclasses import replace

from support.databases.indexes import OpenIndex

from app.errors import IdempotencyKeyInUse
from app.state.idempotency import Held
from app.state.jobs import Job, JobIndex

JOB = Job("a", "queued", "v", "p", 1, "00", 0.0)


def test_a_webhook_is_attempted_by_one_worker_at_a_time(open_index: OpenIndex) -> None:
    """A row that a worker didn't settle is free when the worker is gone, and then it is another's."""
    first, second, third = (open_index() for _ in range(3))
    first.add(replace(JOB, state="done", finished=1.0), 9, "http://hook")
    assert first.callbacks.claim(2.0) is not None
    assert second.callbacks.claim(2.0) is None
    first.close()
    taken = second.callbacks.claim(2.0)
    assert taken is not None
    assert taken.attempts == 2
    assert third.callbacks.claim(2.0) is None
    third.callbacks.settle("a", "failed", 500, "late")
    second.callbacks.settle("a", "delivered", 204, None)
    settled = third.callbacks.get("a")
    assert settled is not None
    assert (settled.state, settled.status, third.callbacks.claim(9.0)) == ("delivered", 204, None)


def test_a_webhook_that_waits_is_refused_once(open_index: OpenIndex) -> None:
    """Two gateways without hosts that they may call both try."""
    first, second = open_index(), open_index()
    first.add(replace(JOB, state="done", finished=1.0), 9, "http://hook")
    assert (first.callbacks.refuse("no"), second.callbacks.refuse("no")) == (1, 0)


def test_a_source_is_fetched_by_one_worker_and_then_the_job_runs(open_index: OpenIndex) -> None:
    """A worker that was taken for dead brings nothing more in."""
    late, index = open_index(), open_index()
    late.add(JOB, 9, source_url="http://video")
    assert index.claim(0.0) is None
    lost = late.sources.claim(0.0)
    assert lost is not None
    assert index.sources.claim(0.0) is None
    late.sources.put_back("a", 0.0, 0, 1.0, None)
    taken = index.sources.claim(0.0)
    assert taken is not None
    assert taken.attempts == 2
    assert not late.sources.progress("a", 1, 9, None, 1.0)
    assert not late.sources.fetched("a", "http://video", 1, "01")
    late.sources.failed(lost, "http://video", 1.0, "code", "late")
    assert index.sources.progress("a", 5, 9, None, 1.0)
    assert index.sources.fetched("a", "http://video", 9, "09")
    job = late.claim(0.0)
    assert job is not None
    assert (job.bytes, job.sha256) == (9, "09")


def test_of_two_workers_that_get_a_key_at_once_one_has_it(open_index: OpenIndex) -> None:
    """The other one says that it is in use, and later has the same job."""
    indexes = [open_index() for _ in range(4)]
    start, got = threading.Barrier(len(indexes)), list[object]()

    def hold(index: JobIndex) -> None:
        start.wait()
        try:
            got.append(index.keys.hold(None, "key", 0.0, 100.0))
        except IdempotencyKeyInUse as error:
            got.append(error)

    threads = [threading.Thread(target=hold, args=(index,)) for index in indexes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (held,) = [one for one in got if isinstance(one, Held)]
    assert len(got) == len(indexes)
    assert indexes[0].add(replace(JOB, id=held.job_id), 9, digest="d")
    assert {index.keys.hold(None, "key", 1.0, 100.0) for index in indexes} == {Held(held.job_id, "d")}
