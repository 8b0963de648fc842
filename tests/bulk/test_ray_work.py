"""Entries of a run on Ray: which waits, which runs, which is tried again, without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.bulk.entries import Entry
from app.bulk.executors.ray.work import Stragglers, Task, Work
from app.bulk.outcomes import Outcome

RULE = Stragglers(factor=3.0, at_least_s=5.0, seen=3)


def entries(number: int) -> Iterator[Entry]:
    return (Entry(f"{n}.mp4", f"/videos/{n}.mp4") for n in range(number))


def done(task: Task) -> Outcome:
    return Outcome(task.entry.name, task.entry.uri, "done")


def taken(work: Work, now: float) -> Task:
    task = work.take(now)
    assert task is not None
    return task


def finish(work: Work, task: Task, begun: float, now: float) -> Outcome | None:
    return work.finished(task, done(task), begun, now)


def with_three_of_a_second(number: int) -> tuple[Work, Task]:
    """Work of which three entries took a second each, and the fourth began at 10."""
    work = Work(entries(number), RULE)
    for begun in (0.0, 1.0, 2.0):
        finish(work, taken(work, begun), begun, begun + 1)
    return work, taken(work, 10.0)


def test_every_entry_has_one_outcome_in_its_turn() -> None:
    """Entries are handed out in their order, and the work is over when each has its outcome."""
    work = Work(entries(3), RULE)
    tasks = [taken(work, 0.0) for _ in range(3)]
    assert [task.entry.name for task in tasks] == ["0.mp4", "1.mp4", "2.mp4"]
    assert work.take(0.0) is None
    for task in tasks:
        assert not work.over
        assert finish(work, task, 0.0, 1.0) == done(task)
    assert work.over


def test_the_list_is_read_as_workers_become_free() -> None:
    """A list that never ends is no trouble: nothing is read ahead."""
    read = []

    def endless() -> Iterator[Entry]:
        while True:
            read.append(len(read))
            yield Entry(f"{len(read)}.mp4", "/v")

    work = Work(endless(), RULE)
    for _ in range(4):
        taken(work, 0.0)
    assert len(read) == 4


def test_an_entry_whose_worker_died_comes_next() -> None:
    """It is handed out before entries that have not run yet."""
    work = Work(entries(3), RULE)
    task = taken(work, 0.0)
    assert work.died(task, 0.0, fatal=False) is False
    assert taken(work, 1.0) is task
    assert taken(work, 1.0).entry.name == "1.mp4"


def test_a_fatal_death_gives_the_entry_up() -> None:
    """The work is over without it, and it isn't handed out again."""
    work = Work(entries(1), RULE)
    assert work.died(taken(work, 0.0), 0.0, fatal=True) is True
    assert work.take(1.0) is None
    assert work.over


def test_a_straggler_runs_twice_once_nothing_else_is_left() -> None:
    """An idle worker takes the entry that runs for more than three medians, and only once."""
    work, slow = with_three_of_a_second(4)
    assert work.take(14.9) is None  # 5 s are the least
    assert taken(work, 15.1) is slow
    assert work.take(99.0) is None


def test_entries_that_wait_come_before_stragglers() -> None:
    """A second copy never takes a worker from an entry that has not run."""
    work, slow = with_three_of_a_second(5)
    assert taken(work, 99.0).entry.name == "4.mp4"
    assert taken(work, 99.0) is slow


@pytest.mark.parametrize("first", [10.0, 20.0])
def test_the_first_copy_s_outcome_counts(first: float) -> None:
    """The other copy's outcome is dropped, whichever it is, and so is its death."""
    work, slow = with_three_of_a_second(4)
    taken(work, 20.0)
    other = 30.0 - first
    assert finish(work, slow, first, 25.0) == done(slow)
    assert work.over
    assert finish(work, slow, other, 26.0) is None
    assert work.over


def test_the_death_of_a_copy_that_lost_changes_nothing() -> None:
    """It neither brings the entry back nor gives it up."""
    work, slow = with_three_of_a_second(4)
    taken(work, 20.0)
    finish(work, slow, 20.0, 25.0)
    assert work.died(slow, 10.0, fatal=True) is False
    assert work.over


def test_a_copy_s_failure_waits_for_the_other_copy() -> None:
    """A worker that can't read the video doesn't take the outcome from one that can."""
    work, slow = with_three_of_a_second(4)
    taken(work, 20.0)
    failed = replace(done(slow), state="failed", code="io_error")
    assert work.finished(slow, failed, 20.0, 21.0) is None
    assert finish(work, slow, 10.0, 30.0) == done(slow)


def test_a_copy_s_death_leaves_the_entry_to_the_other_copy() -> None:
    """It is neither handed out a third time nor given up while a copy runs."""
    work, slow = with_three_of_a_second(4)
    taken(work, 20.0)
    assert work.died(slow, 10.0, fatal=True) is False
    assert work.take(21.0) is None
    assert finish(work, slow, 20.0, 22.0) == done(slow)


def test_no_straggler_without_others_to_compare_with() -> None:
    """Two durations are no measure."""
    work = Work(entries(3), RULE)
    for _ in range(2):
        finish(work, taken(work, 0.0), 0.0, 1.0)
    taken(work, 1.0)
    assert work.take(99.0) is None
