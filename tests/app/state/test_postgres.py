"""Video jobs in PostgreSQL: offered by procrastinate, claimed once, and restored when a worker or a task is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from support.databases.postgres import PostgresServer
from support.servers.cable import Cable
from support.waiting import eventually

from app.errors import VideosUnavailable
from app.state.jobs import Job, JobIndex
from app.state.postgres.jobs import open_jobs

Open = Callable[..., JobIndex]


def job(name: str) -> Job:
    return Job(name, "queued", name, "p", 1, "00", 0.0)


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.database()


@pytest.fixture
def opened(url: str) -> Iterator[Open]:
    """Opens the jobs as one more gateway does, which takes up to `most` at a time."""
    with contextlib.ExitStack() as stack:

        def build(most: int = 1, lease_s: float = 60.0) -> JobIndex:
            index = open_jobs(url, lease_s)
            stack.callback(index.close)
            index.start(most, threading.Event().set)
            return index

        yield build


def claimed(index: JobIndex) -> Job:
    """The next job that is offered, claimed."""
    found: list[Job] = []

    def look() -> bool:
        found.extend(filter(None, [index.claim(0.0)]))
        return bool(found)

    eventually(look)
    return found[0]


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def test_a_job_is_run_by_the_gateway_that_is_free(opened: Open, url: str) -> None:
    """Whoever got the submission; a gateway takes no more than it may run, and leaves no tasks behind."""
    first, second = opened(), opened()
    for name in "ab":
        assert first.add(job(name), 9)
    one, other = claimed(first), claimed(second)
    assert {one.id, other.id} == {"a", "b"}
    first.add(job("c"), 9)
    assert second.finish(other, "done", 1.0, 0, None)
    second.release(other.id)
    assert claimed(second).id == "c"
    first.finish(one, "done", 1.0, 0, None)
    first.release(one.id)
    eventually(lambda: rows(url, "SELECT count(*) FROM procrastinate_jobs") == [(1,)])


def test_a_job_that_is_put_back_comes_again(opened: Open) -> None:
    """Its task is deferred in the same transaction."""
    index = opened()
    index.add(job("a"), 9)
    taken = claimed(index)
    assert index.put_back(taken, 0.0, None, None, 1)
    index.release("a")
    assert claimed(index).fence == taken.fence + 1


def test_a_job_whose_task_is_lost_is_offered_again(opened: Open, url: str) -> None:
    """The row says what is to be done; the task is only the way there."""
    waiting = opened(lease_s=4.0)
    waiting.add(job("a"), 9)
    assert claimed(waiting).id == "a"  # so that nobody is free
    waiting.add(job("b"), 9)
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM procrastinate_jobs WHERE queueing_lock = 'b'")
    assert claimed(opened(lease_s=4.0)).id == "b"


def test_the_job_of_a_worker_without_a_sign_of_life_is_run_by_another(
    opened: Open, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what the first does to it afterwards changes nothing."""
    first = opened(lease_s=1.0)
    first.add(job("a"), 9)
    lost = claimed(first)
    monkeypatch.setattr(first._owners, "_beat", lambda: None)
    second = opened(lease_s=1.0)
    taken = claimed(second)
    assert (taken.id, taken.fence) == ("a", lost.fence + 1)
    assert not first.holds(lost)
    assert not first.finish(lost, "failed", 1.0, 0, None)
    assert second.finish(taken, "done", 2.0, 0, None)
    row = first.get("a")
    assert row is not None
    assert (row.state, row.fence) == ("done", taken.fence)


def test_gateways_that_start_together_make_the_tables_once(url: str) -> None:
    """Each may be the first."""
    indexes: list[JobIndex] = []
    threads = [threading.Thread(target=lambda: indexes.append(open_jobs(url, 60.0))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(indexes) == 4
    for index in indexes:
        index.close()


def test_a_server_that_comes_back_is_used_again() -> None:
    """While it is away every call says so; a running job goes on, and its end is recorded afterwards."""
    with PostgresServer() as server:
        index = open_jobs(server.url, 60.0)
        index.start(1, threading.Event().set)
        index.add(job("a"), 9)
        taken = claimed(index)
        server.kill()
        eventually(
            lambda: not _works(index)
        )  # the process of an open connection may outlive its server for a moment
        with pytest.raises(VideosUnavailable, match="PostgreSQL"):
            index.add(job("b"), 9)
        with pytest.raises(VideosUnavailable, match="PostgreSQL"):
            open_jobs(server.url, 60.0)
        server.start()
        with contextlib.suppress(VideosUnavailable):  # the first call may find a connection of before
            index.get("a")
        eventually(lambda: _works(index))
        assert index.finish(taken, "done", 1.0, 0, None)
        index.release("a")
        index.add(job("b"), 9)
        assert claimed(index).id == "b"
        index.close()


def test_a_lost_answer_to_a_commit_is_told_apart(postgres: PostgresServer, url: str) -> None:
    """The row may be there, as it is here; where the statements failed, it can't be."""
    with Cable(f"127.0.0.1:{postgres.port}") as cable:
        index = open_jobs(url.replace(f"127.0.0.1:{postgres.port}", cable.url), 60.0)
        cable.loses = (b"INSERT INTO jobs", b"COMMIT")
        with pytest.raises(VideosUnavailable, match="PostgreSQL") as caught:
            index.add(job("a"), 9)
        assert caught.value.commit_unknown
        cable.loses = (b"INSERT INTO jobs",)
        with pytest.raises(VideosUnavailable) as caught:
            index.add(job("b"), 9)
        assert not caught.value.commit_unknown
        eventually(lambda: _works(index))
        assert index.get("b") is None
        index.close()


def _works(index: JobIndex) -> bool:
    with contextlib.suppress(VideosUnavailable):
        return index.get("a") is not None
    return False
