"""The Ray executor on a real cluster of this machine: workers that die, hang, or can't work."""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ray import cloudpickle
from support.on_ray.cluster import RayCluster
from support.waiting import PATIENCE_S, ended, eventually

from app.bulk.attempts import Attempts
from app.bulk.entries import Entry
from app.bulk.executors.base import Stopped
from app.bulk.executors.ray.cluster import Needs, Unusable
from app.bulk.executors.ray.executor import RayExecutor, RayOptions
from app.bulk.executors.ray.work import Stragglers
from app.bulk.outcomes import Outcome, now
from app.videos.stores.folder import FolderStore

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes have no tests
NEEDS = Needs(cpus=1.0)


@dataclass(frozen=True)
class Scripted:
    """Worker that does what an entry's URI says; `notes` is a folder in which each attempt leaves a file."""

    notes: Path

    def __call__(self) -> Scripted:
        return self

    def analyse(self, entry: Entry, attempt: int) -> Outcome:
        (self.notes / f"{entry.name} {attempt} {os.getpid()}").touch()
        word, _, argument = entry.uri.partition(" ")
        if word == "die" and attempt <= int(argument):
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "hang" or (word == "slow" and self._first(entry.name)):
            self._until_stopped()
        if word == "unusable":
            raise RuntimeError("no branch of detect can serve")
        if word == "defect":
            raise ValueError("of the program")
        at = now()
        return Outcome(
            entry.name, entry.uri, "done", attempts=attempt, worker=str(os.getpid()), finished_at=at
        )

    def _first(self, name: str) -> bool:
        """True for the first copy of an entry alone."""
        with suppress(FileExistsError):
            (self.notes / f"first {name}").touch(exist_ok=False)
            return True
        return False

    def _until_stopped(self) -> None:
        limit = time.monotonic() + PATIENCE_S
        while time.monotonic() < limit:
            if (self.notes / "stop").exists():
                raise Stopped
            time.sleep(0.01)

    def stop(self) -> None:
        (self.notes / "stop").touch()

    def close(self) -> None:
        (self.notes / f"closed {os.getpid()}").touch()


def named(*uris: str) -> list[Entry]:
    return [Entry(f"{number}.mp4", uri) for number, uri in enumerate(uris)]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """Two nodes with one worker each."""
    with RayCluster(2) as made:
        yield made


@pytest.fixture
def executor(request: pytest.FixtureRequest, cluster: RayCluster) -> Iterator[RayExecutor]:
    """An executor on the cluster."""
    stragglers = getattr(request, "param", Stragglers())
    made = RayExecutor(RayOptions(cluster.address, needs=NEEDS, stragglers=stragglers), 2)
    yield made
    made.close()


def outcomes(executor: RayExecutor, entries: Iterable[Entry], notes: Path) -> Iterator[Outcome]:
    attempts = Attempts(FolderStore(notes.parent / "out"), "run")
    return executor.run(entries, Scripted(notes), attempts)


def begun(notes: Path, name: str) -> list[int]:
    """The attempts at an entry."""
    return sorted(int(path.name.split()[1]) for path in notes.glob(f"{name} *"))


@contextmanager
def running(executor: RayExecutor, entries: Iterable[Entry], notes: Path) -> Iterator[list[Outcome]]:
    """Run the entries on a thread until the block ends, since only the main thread can start nodes."""
    found: list[Outcome] = []

    def run() -> None:
        for outcome in outcomes(executor, entries, notes):
            found.append(outcome)  # noqa: PERF402  # one by one, for the other thread

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        executor.stop()
        thread.join()


def test_entries_whose_workers_die_are_tried_again_or_set_aside(executor: RayExecutor, notes: Path) -> None:
    """One death is retried, two are poison, a defect is one entry's; the others are done, once each."""
    entries = named("ok", "die 1", "ok", "die 9", "defect", "ok")
    found = {outcome.name: outcome for outcome in outcomes(executor, entries, notes)}
    states = [found[entry.name].state for entry in entries]
    assert states == ["done", "done", "done", "poison", "failed", "done"]
    assert [begun(notes, entry.name) for entry in entries] == [[1], [1, 2], [1], [1, 2], [1], [1]]
    assert found["1.mp4"].attempts == found["3.mp4"].attempts == 2
    assert "two workers died" in (found["3.mp4"].reason or "")
    assert found["4.mp4"].code == "internal_error"


def test_workers_are_closed_and_gone_after_a_run(executor: RayExecutor, notes: Path) -> None:
    """Each worker releases its models, and its process ends."""
    pids = {int(outcome.worker or 0) for outcome in outcomes(executor, named("ok", "ok", "ok"), notes)}
    assert pids <= {int(path.name.split()[1]) for path in notes.glob("closed *")}
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))


@pytest.mark.parametrize("executor", [Stragglers(factor=1.0, at_least_s=0.0, seen=3)], indirect=True)
def test_a_straggler_runs_on_an_idle_worker_too(executor: RayExecutor, notes: Path) -> None:
    """The copy that comes first is the outcome, and the run doesn't wait for the other one."""
    found = list(outcomes(executor, named("slow", "ok", "ok", "ok"), notes))
    assert sorted((outcome.name, outcome.state) for outcome in found) == [
        (f"{number}.mp4", "done") for number in range(4)
    ]
    assert len(begun(notes, "0.mp4")) == 2


def test_a_stop_ends_what_runs_and_begins_nothing_more(executor: RayExecutor, notes: Path) -> None:
    """Workers are told, no matter how long their videos are, and the run ends without outcomes."""
    with running(executor, named("hang", "hang", "hang"), notes) as found:
        eventually(lambda: len(list(notes.glob("?.mp4 *"))) == 2)
    assert found == []
    assert begun(notes, "2.mp4") == []


def test_settings_with_which_no_video_can_be_analysed_end_the_run(executor: RayExecutor, notes: Path) -> None:
    """The reason comes as the worker said it, not as a traceback."""
    with pytest.raises(Unusable, match=r"^no branch of detect can serve$"):
        list(outcomes(executor, named("unusable", "hang"), notes))


def test_the_list_is_read_as_workers_become_free(executor: RayExecutor, notes: Path) -> None:
    """A list without end is read a few entries ahead at most."""
    read: list[int] = []

    def endless() -> Iterator[Entry]:
        for number in itertools.count():
            read.append(number)
            yield Entry(f"{number}.mp4", "ok")

    found = outcomes(executor, endless(), notes)
    assert {next(found).state for _ in range(20)} == {"done"}
    assert len(read) <= 20 + 4
    found.close()  # type: ignore[attr-defined]  # a generator


def test_a_node_with_another_version_is_told(
    executor: RayExecutor, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both versions are named, and what to do."""
    monkeypatch.setattr("app.bulk.executors.ray.executor.__version__", "99.9")
    with pytest.raises(Unusable, match=r"has triton-vision-gateway \S+, this command is 99\.9: install"):
        list(outcomes(executor, named("ok"), notes))


def test_a_node_without_a_package_of_the_run_is_told(
    executor: RayExecutor, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The missing module is named."""
    (tmp_path / "of_the_driver_alone.py").write_text("def make():\n    return None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    make = importlib.import_module("of_the_driver_alone").make
    attempts = Attempts(FolderStore(tmp_path / "out"), "run")
    with pytest.raises(Unusable, match=r"lacks a package of this run: .*of_the_driver_alone"):
        list(executor.run(named("ok"), make, attempts))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (RayOptions("ray://127.0.0.1:10001"), "--address auto"),
        (RayOptions("http://127.0.0.1:8265"), "ray job submit"),
        (RayOptions("127.0.0.1:8265"), "ray job submit"),
        (RayOptions("127.0.0.1:1"), "no Ray cluster answers at 127.0.0.1:1: Connection refused"),
        (RayOptions("head.invalid:6379"), "no Ray cluster answers at head.invalid:6379"),
        (RayOptions("127.0.0.1:99999"), "none of auto, local and host:port"),
        (RayOptions("nonsense"), "none of auto, local and host:port"),
        (RayOptions("local", needs=Needs(triton=True)), "triton"),
    ],
)
def test_addresses_that_are_no_cluster_are_told(options: RayOptions, words: str) -> None:
    """The words say which address it takes, before anything is started."""
    with pytest.raises(Unusable, match=words):
        RayExecutor(options, 2)


def test_a_node_that_comes_during_a_run_gets_a_worker(
    executor: RayExecutor, cluster: RayCluster, notes: Path
) -> None:
    """More workers are requested than there is room for: the third entry begins on a third node."""
    with running(executor, named("hang", "hang", "hang"), notes) as found:
        eventually(lambda: len(list(notes.glob("?.mp4 *"))) == 2)
        cluster.add()
        eventually(lambda: len(list(notes.glob("?.mp4 *"))) == 3)
    assert found == []


def test_an_entry_whose_node_dies_goes_to_another_one(
    executor: RayExecutor,
    cluster: RayCluster,
    notes: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It is done there with its second attempt; what Ray says of the node is logged, not printed."""
    with running(executor, named("slow", "slow"), notes) as found:
        eventually(lambda: len(list(notes.glob("?.mp4 *"))) == 2)
        worker = next(notes.glob("0.mp4 *")).name.split()[2]
        cluster.kill_node(int(worker))
        cluster.add()
        eventually(lambda: bool(found))
        eventually(lambda: "Ray: The node with node id" in caplog.text)
    assert [(outcome.state, outcome.attempts) for outcome in found] == [("done", 2)]
    assert capfd.readouterr().out == ""


def test_without_a_cluster_one_is_started_here_for_the_run(notes: Path) -> None:
    """It has the machine's CPUs, even if that is fewer than a worker wants, and is gone afterwards."""
    executor = RayExecutor(RayOptions("local", needs=Needs(cpus=2.0)), 1)
    try:
        (outcome,) = outcomes(executor, named("ok"), notes)
        parents = psutil.Process(int(outcome.worker or 0)).parents()
        raylet = next(process for process in parents if process.name() == "raylet")
    finally:
        executor.close()
    assert outcome.state == "done"
    eventually(lambda: ended(raylet))
