"""The index of video jobs: one runner per job, whichever process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from support.databases.indexes import OpenIndex
from support.paths import ROOT

from app.state.jobs import Job, JobIndex, Position


def job(name: str, created: float = 0.0) -> Job:
    return Job(name, "queued", name, "p", 1, "00", created)


def test_jobs_run_in_the_order_of_their_coming(open_index: OpenIndex) -> None:
    """The oldest first, each once; who waits knows how many come before."""
    index = open_index()
    for number, name in enumerate("abc"):
        assert index.add(job(name, number), 10)
    waiting = index.get("c")
    assert waiting is not None
    assert index.waiting_before(waiting) == 2
    claimed = [index.claim(100.0) for _ in range(4)]
    assert [row.id if row else None for row in claimed] == ["a", "b", "c", None]
    assert claimed[0] is not None
    assert (claimed[0].state, claimed[0].attempts, claimed[0].started) == ("running", 1, 100.0)


def test_only_so_many_may_wait(open_index: OpenIndex) -> None:
    """The queue is bounded; what runs doesn't wait."""
    index = open_index()
    assert index.add(job("a"), 1)
    assert not index.add(job("b"), 1)
    index.claim(0.0)
    assert index.add(job("b"), 1)


def test_a_job_that_comes_back_later_lets_others_pass(open_index: OpenIndex) -> None:
    """A job that waits for its backend doesn't block the queue."""
    index = open_index()
    index.add(job("a", 0), 9)
    index.add(job("b", 1), 9)
    taken = index.claim(0.0)
    assert taken is not None
    assert index.put_back(taken, 50.0, "triton_unavailable", "away", 1)
    later = [index.claim(10.0), index.claim(10.0), index.claim(60.0)]
    assert [row.id if row else None for row in later] == ["b", None, "a"]


def test_threads_never_get_the_same_job(open_index: OpenIndex) -> None:
    """Many who claim at once each get a job of their own."""
    index = open_index()
    for number in range(40):
        index.add(job(f"{number:02}", number), 99)
    claimed: list[str] = []

    def claim() -> None:
        while (row := index.claim(0.0)) is not None:
            claimed.append(row.id)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == [f"{number:02}" for number in range(40)]


_CLAIM = """
import sys, time
from pathlib import Path
from app.state.jobs import JobIndex
index = JobIndex.in_folder(Path(sys.argv[1]))
print(index.claim(0.0).id, flush=True)
time.sleep(60)
"""


def test_a_dead_worker_s_job_is_free_at_once(tmp_path: Path) -> None:
    """While a process runs a job nobody else gets it; killed with -9, the next one who asks does."""
    index = JobIndex.in_folder(tmp_path)
    index.add(job("a"), 9)
    with subprocess.Popen(
        [sys.executable, "-c", _CLAIM, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "a\n"
        assert index.claim(0.0) is None
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        taken = index.claim(0.0)
    assert taken is not None
    assert (taken.id, taken.attempts) == ("a", 2)
    index.close()


def test_a_worker_that_stops_hands_its_jobs_back(open_index: OpenIndex) -> None:
    """Closing gives up what is still running."""
    first = open_index()
    first.add(job("a"), 9)
    assert first.claim(0.0) is not None
    first.close()
    second = open_index()
    assert second.claim(0.0) is not None


def test_a_worker_that_lost_its_job_changes_nothing(open_index: OpenIndex) -> None:
    """Progress and results of who isn't the owner any more are not written over the new owner's."""
    first = open_index()
    first.add(job("a"), 9)
    lost = first.claim(0.0)
    assert lost is not None
    assert first.holds(lost)
    assert first.put_back(lost, 0.0, None, None, 1)
    second = open_index()
    taken = second.claim(0.0)
    assert taken is not None
    assert (taken.fence, first.holds(lost), second.holds(taken)) == (lost.fence + 1, False, True)
    assert not first.progress(lost, 99, 99, 1.0)
    assert not first.finish(lost, "done", 1.0, 5, None)
    assert not first.put_back(lost, 0.0, None, None, 1)
    row = second.get("a")
    assert row is not None
    assert (row.state, row.frames) == ("running", 0)


def test_even_the_same_worker_is_held_to_the_claim(open_index: OpenIndex) -> None:
    """A thread that was late doesn't finish what another thread of its process has claimed since."""
    index = open_index()
    index.add(job("a"), 9)
    late = index.claim(0.0)
    assert late is not None
    index.put_back(late, 0.0, None, None, 1)
    taken = index.claim(0.0)
    assert taken is not None
    assert not index.finish(late, "failed", 1.0, 5, ("code", "words"))
    assert index.finish(taken, "done", 1.0, 5, None, "5a", 7)


def test_the_result_its_manifest_and_its_fence_are_one_change(open_index: OpenIndex) -> None:
    """A reader sees all of it or nothing; a repeated end, whose first answer was lost, is no failure."""
    index = open_index()
    index.add(job("a"), 9)
    taken = index.claim(0.0)
    assert taken is not None
    assert index.finish(taken, "done", 1.0, 5, None, "5a", 7)
    assert index.finish(taken, "done", 1.0, 5, None, "5a", 7)
    row = index.get("a")
    assert row is not None
    assert (row.state, row.fence, row.manifest_sha256, row.frames, row.fraction) == ("done", 1, "5a", 7, 1.0)
    index.keep("a", 3)
    index.keep("a", 8)
    row = index.get("a")
    assert row is not None
    assert row.kept_bytes == 8


def test_deleted_jobs_are_seen_by_nobody_and_go_when_nobody_runs_them(open_index: OpenIndex) -> None:
    """A deletion is immediate for callers; the files wait until the runner has let go."""
    index = open_index()
    index.add(job("a"), 9)
    index.claim(0.0)
    assert index.mark_deleted("a") is not None
    assert index.mark_deleted("a") is None
    assert index.get("a") is None
    assert index.is_deleted("a")
    assert index.removable() == []
    index.disown("a")
    assert index.removable() == ["a"]
    index.remove("a")
    assert index.counts() == {}


@pytest.mark.parametrize(
    ("keep_s", "keep_bytes", "gone"),
    [(100.0, 100, []), (15.0, 100, ["a"]), (100.0, 25, ["a"]), (100.0, 0, ["c", "b", "a"])],
)
def test_what_is_too_old_or_too_much_expires(
    open_index: OpenIndex, keep_s: float, keep_bytes: int, gone: list[str]
) -> None:
    """By age, and by room: the oldest first. What isn't finished stays."""
    index = open_index()
    for number, name in enumerate("abc"):
        index.add(job(name, number), 9)
        taken = index.claim(0.0)
        assert taken is not None
        index.finish(taken, "done", 10.0 * number, 10, None)
    index.add(job("waiting"), 9)
    assert index.expired(20.0, keep_s, keep_bytes) == gone


def test_the_list_comes_in_pages_by_state_and_maker(open_index: OpenIndex) -> None:
    """A page begins behind a position; what is added or removed in between shifts nothing."""
    index = open_index()
    for number in range(6):
        index.add(
            replace(job("abcdef"[number], number // 2), made_by="even" if number % 2 == 0 else "odd"), 99
        )
    index.add(replace(job("s", 9.0), made_by="even"), 99, source_url="https://example.com/v")
    pages, after = [], None
    while rows := index.newest(2, after=after):
        pages.append("".join(row.id for row in rows))
        after = Position(rows[-1].created, rows[-1].id)
        index.mark_deleted(rows[-1].id)
        index.add(job(f"new{len(pages)}", 10.0), 99)
    assert pages == ["se", "fc", "da", "b"]
    assert {row.id for row in index.newest(9, "even", ["queued"])} == {"s"}
    assert [row.id for row in index.newest(9, None, ["fetching"])] == ["s"]
    index.claim(0.0)
    assert len(index.newest(9, None, ["running", "done"])) == 1
