"""Indexes of earlier releases are used as they are, and a release before works on beside this one.

`earlier/*.sql` are dumps of databases that earlier commits made; `earlier/statements.json` has the statements of the
last commit before schema 1.1, by what it did with them.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.state.jobs import Job, JobIndex
from app.state.schema_version import JOBS, SchemaVersion

EARLIER = Path(__file__).with_name("earlier")
A, B, C, D, E, F = (letter * 32 for letter in "abcdef")


@pytest.mark.parametrize("made_by", ["jobs", "makers", "callbacks", "sources"])
def test_an_index_of_an_earlier_release_is_continued(made_by: str, tmp_path: Path) -> None:
    """Finished jobs stay, what ran in a dead worker is resumed, what waits is run, and new jobs have all columns."""
    connection = sqlite3.connect(tmp_path / "jobs.sqlite3")
    connection.executescript((EARLIER / f"{made_by}.sql").read_text(encoding="utf-8"))
    connection.close()
    index = JobIndex.in_folder(tmp_path)
    done, failed = index.get(C), index.get(D)
    assert done is not None
    assert failed is not None
    assert (done.state, done.frames, done.finished, done.kept_bytes) == ("done", 12, 110.0, 999)
    assert (failed.state, failed.code, failed.detail) == ("failed", "invalid_video", "broken")
    claimed = []
    while (job := index.claim(200.0)) is not None:
        claimed.append((job.id, job.attempts, job.frames))
    fetching = made_by == "sources"
    assert claimed == [(B, 2, 7), (A, 1, 0), (E, 1, 0), *([] if fetching else [(F, 1, 0)])]
    assert {job.id for job in index.newest(99)} == {A, B, C, D, E, F}
    assert index.removable() == ["0" * 32]
    callback = index.callbacks.get(E)
    assert (callback is not None) == (made_by in ("callbacks", "sources"))
    assert (index.sources.claim(200.0) is not None) == fetching
    held = index.keys.hold(None, "k", 0.0, 1e12)
    assert index.add(Job(held.job_id, "queued", "n", "p", 1, "00", 300.0), 99, digest="d")
    with index._database.reading() as opened:
        assert SchemaVersion.of(opened.execute("PRAGMA user_version").fetchone()[0]) == JOBS
    index.close()


class Before:
    """The release before, in the same folder: its statements, with a worker of its own."""

    def __init__(self, folder: Path) -> None:
        self.owner = "f" * 32
        self._statements: dict[str, list[str]] = json.loads((EARLIER / "statements.json").read_text())
        self._lock = (folder / ".owners" / self.owner).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._connection = sqlite3.connect(folder / "jobs.sqlite3", isolation_level=None)

    def run(self, step: str) -> list[Any]:
        """Return the rows of the step's statements."""
        rows: list[Any] = []
        for statement in self._statements[step]:
            rows += self._connection.execute(statement.replace("@owner", self.owner)).fetchall()
        return rows

    def close(self) -> None:
        self._connection.close()
        self._lock.close()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[JobIndex]:
    opened = JobIndex.in_folder(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def before(index: JobIndex, tmp_path: Path) -> Iterator[Before]:
    assert index.get("x") is None
    opened = Before(tmp_path)
    yield opened
    opened.close()


ONE, TWO = "1" * 32, "2" * 32


def test_both_releases_run_the_jobs_of_one_folder(index: JobIndex, before: Before) -> None:
    """A job that this release takes is run by the one before, and the other way round; neither takes the other's."""
    held = index.keys.hold("camera", "k", 0.0, 1e12)
    job = Job(held.job_id, "queued", "v", "p", 1, "00", 9.0, made_by="camera")
    assert index.add(job, 99, digest="d")
    two = Job(TWO, "queued", "2.mp4", "p", 10, "00" * 32, 2.0, made_by="camera")
    assert index.add(two, 99, "https://hooks.example.com/2")
    before.run("claim")
    mine = index.claim(100.0)
    assert mine is not None
    assert mine.id == job.id
    assert index.claim(100.0) is None
    before.run("progress")
    theirs = index.get(TWO)
    assert theirs is not None
    assert (theirs.state, theirs.owner, theirs.frames) == ("running", before.owner, 5)
    before.run("put_back")
    assert index.newest(1, None, ["queued"])[0].id == TWO
    before.run("claim")
    before.run("finish")
    theirs = index.get(TWO)
    assert theirs is not None
    assert (theirs.state, theirs.kept_bytes) == ("done", 777)
    before.run("deliver")
    before.run("delivered")
    callback = index.callbacks.get(TWO)
    assert callback is not None
    assert callback.state == "delivered"


def test_both_releases_fetch_and_list(index: JobIndex, before: Before) -> None:
    """Jobs that the release before adds and fetches are run here; its lists show the jobs of this one."""
    before.run("add")
    assert index.claim(100.0) is None
    assert [job.id for job in index.newest(9, "camera", ["fetching"])] == [ONE]
    before.run("fetch")
    assert index.sources.claim(130.0) is None
    before.run("fetched")
    index.add(Job(TWO, "queued", "2", "p", 1, "00", 2.0), 99)
    assert {row[0] for row in before.run("list")} == {ONE, TWO}
    assert before.run("counts") == [("queued", 2)]
    assert len(before.run("get")[0]) == 19
    claimed = index.claim(200.0)
    assert claimed is not None
    assert (claimed.id, claimed.sha256) == (ONE, "11" * 32)


def test_a_job_that_the_release_before_deletes_frees_its_key(index: JobIndex, before: Before) -> None:
    """It knows nothing of keys, and leaves them."""
    held = index.keys.hold("camera", "k", 0.0, 1e12)
    with index._database.writing() as connection:  # the statements name this job
        connection.execute("UPDATE idempotency_keys SET job_id = ?", (TWO,))
    assert index.add(Job(TWO, "queued", "2", "p", 1, "00", 2.0, made_by="camera"), 99, digest="d")
    assert index.keys.hold("camera", "k", 0.0, 1e12).job_id == TWO != held.job_id
    before.run("delete")
    assert index.keys.hold("camera", "k", 0.0, 0.0).digest is None
    before.run("remove")
    assert index.keys.hold("camera", "k", 1.0, 2.0).digest is None
