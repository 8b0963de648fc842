"""The local executor: workers that die, videos that kill them, and a stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from support.bulk.workers import MakeObedient
from support.paths import ROOT
from support.waiting import ended, eventually

from app.bulk.attempts import Attempts
from app.bulk.entries import Entry
from app.bulk.executors.local import LocalExecutor
from app.bulk.outcomes import Outcome
from app.videos.stores.folder import FolderStore


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    made = LocalExecutor(2)
    yield made
    made.close()


def entries(*videos: tuple[str, str]) -> list[Entry]:
    return [Entry(name, uri) for name, uri in videos]


def run(executor: LocalExecutor, listed: Sequence[Entry], folder: Path) -> dict[str, Outcome]:
    attempts = Attempts(FolderStore(folder / "out"), "run")
    return {row.name: row for row in executor.run(listed, MakeObedient(str(folder)), attempts)}


def test_every_entry_has_a_row_and_the_workers_live_on(executor: LocalExecutor, tmp_path: Path) -> None:
    """Two processes do all of it, and close what they hold at the end."""
    found = run(executor, entries(*((f"{n}", "ok") for n in range(9))), tmp_path)
    assert {row.state for row in found.values()} == {"done"}
    assert len(found) == 9
    workers = {row.worker for row in found.values()}
    assert 1 <= len(workers) <= 2
    assert str(os.getpid()) not in workers
    executor.close()
    assert {path.name for path in tmp_path.glob("closed.*")} >= {f"closed.{pid}" for pid in workers}


def test_a_video_that_kills_twice_is_set_aside(executor: LocalExecutor, tmp_path: Path) -> None:
    """It has two attempts, its row names the signal, and the videos beside it have one attempt each."""
    listed = entries(("a", "ok"), ("b", "kill"), ("c", "ok"), ("d", "kill once"), ("e", "ok"))
    found = run(executor, listed, tmp_path)
    assert {name: row.state for name, row in found.items()} == {
        "a": "done", "b": "poison", "c": "done", "d": "done", "e": "done",
    }  # fmt: skip
    assert {name: row.attempts for name, row in found.items()} == {"a": 1, "b": 2, "c": 1, "d": 2, "e": 1}
    assert found["b"].code == "worker_killed"
    assert "SIGKILL" in str(found["b"].reason)


def test_kills_count_across_drivers(executor: LocalExecutor, tmp_path: Path) -> None:
    """A video that killed a worker of a driver that died has one kill left, and its attempts go on."""
    store = FolderStore(tmp_path / "out")
    before = Attempts(store, "before")
    before.begin("b")
    before.killed("b")
    attempts = Attempts(store, "now")
    attempts.resume()
    (row,) = executor.run(entries(("b", "kill")), MakeObedient(str(tmp_path)), attempts)
    assert (row.state, row.attempts) == ("poison", 2)
    attempts.settle("b")
    attempts.publish()
    assert list(store.list("run/attempts")) == []


def test_a_stop_ends_what_runs_and_begins_nothing(executor: LocalExecutor, tmp_path: Path) -> None:
    """Videos that wait for ever are told to stop; they have no rows, and the third is never begun."""
    listed = entries(("a", "wait"), ("b", "wait"), ("c", "ok"))

    def stop() -> None:
        eventually(lambda: len(list(tmp_path.glob("?.1"))) == 2)
        executor.stop()

    told = threading.Thread(target=stop)
    told.start()
    assert run(executor, listed, tmp_path) == {}
    told.join()
    assert not (tmp_path / "c.1").exists()


def test_what_no_video_can_do_ends_the_run(executor: LocalExecutor, tmp_path: Path) -> None:
    """Settings that this machine can't carry out are no fault of a video."""
    with pytest.raises(RuntimeError, match="no model is here"):
        run(executor, entries(("a", "unusable"), ("b", "ok")), tmp_path)


_DRIVER = """
import sys
from pathlib import Path
from support.bulk.workers import MakeObedient
from app.bulk.attempts import Attempts
from app.bulk.entries import Entry
from app.bulk.executors.local import LocalExecutor
from app.videos.stores.folder import FolderStore
folder = Path(sys.argv[1])
attempts = Attempts(FolderStore(folder / "out"), "run")
list(LocalExecutor(1).run([Entry("a", "wait")], MakeObedient(str(folder)), attempts))
"""


def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    """Nobody works on for a driver that is gone."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])
    driver = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, tmp_path], env={**os.environ, "PYTHONPATH": paths}
    )
    try:
        eventually(lambda: (tmp_path / "a.1").exists() and (tmp_path / "a.1").read_text() != "")
        worker = psutil.Process(int((tmp_path / "a.1").read_text()))
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    eventually(lambda: ended(worker))
