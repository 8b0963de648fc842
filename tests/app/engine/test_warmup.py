"""First runs: side by side, the usual branches first, failed ones last, and none waits for one that hangs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest
from support.models.repository import CATALOGUE
from support.waiting import PATIENCE_S, eventually

from app.deadline import Deadline
from app.engine import warmup
from app.engine.base import ModelState
from app.engine.warmup import Warmer
from app.errors import InferenceFailed, TritonUnavailable
from routing.catalogue import Branch
from routing.policy import Readiness

BRANCHES = tuple(branch for branch in CATALOGUE.branches.values() if branch.twin_of is None)


class Runs:
    """The runs of a warmer: each waits for its gate if it has one, and fails if it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gates: dict[str, threading.Event] = {}
        self.errors: dict[str, Exception] = {}
        self.under_way = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, branch: Branch, _: Deadline) -> None:
        with self._lock:
            self.begun.append(branch.name)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        gate = self.gates.get(branch.name)
        if gate is not None:
            gate.wait(PATIENCE_S)
        with self._lock:
            self.under_way -= 1
        if branch.name in self.errors:
            raise self.errors[branch.name]


Make = Callable[..., Warmer]


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def make(runs: Runs) -> Iterator[Make]:
    """Makes warmers; at the end every gate is opened and they are closed."""
    made: list[Warmer] = []

    def build(order: tuple[str, ...] = (), changed: Callable[[], object] = lambda: None) -> Warmer:
        made.append(Warmer(runs, 60.0, changed, order))
        return made[-1]

    yield build
    for gate in runs.gates.values():
        gate.set()
    for warmer in made:
        warmer.close()
        warmer.join(PATIENCE_S)


def verdict(warmer: Warmer, branch: Branch, version: str = "1") -> ModelState:
    return warmer.verdict(branch, ModelState(branch.name, Readiness.READY, version=version))


def ready(warmer: Warmer, branch: Branch) -> bool:
    return verdict(warmer, branch).ready


def hold(runs: Runs, *branches: Branch) -> None:
    for branch in branches:
        runs.gates[branch.name] = threading.Event()


def test_runs_are_side_by_side_and_bounded(runs: Runs, make: Make) -> None:
    """Ten branches run as many at once as allowed, and no more."""
    ten = BRANCHES[:10]
    hold(runs, *ten)
    warmer = make()
    for branch in ten:
        assert verdict(warmer, branch).readiness is Readiness.LOADING
    eventually(lambda: runs.under_way == warmup.AT_ONCE)
    for branch in ten:
        runs.gates[branch.name].set()
    eventually(lambda: all(ready(warmer, branch) for branch in ten))
    assert runs.most == warmup.AT_ONCE


def test_a_run_that_hangs_delays_no_other_branch(
    runs: Runs, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more hanging runs than may be under way at once, the others become ready while these still hang."""
    monkeypatch.setattr(warmup, "PATIENCE_S", 0.05)
    hanging, others = BRANCHES[: warmup.AT_ONCE + 2], BRANCHES[10:16]
    hold(runs, *hanging)
    warmer = make()
    for branch in (*hanging, *others):
        verdict(warmer, branch)
    eventually(lambda: all(ready(warmer, branch) for branch in others))
    assert runs.under_way == len(hanging)
    assert not any(ready(warmer, branch) for branch in hanging)


def test_a_run_that_hangs_is_no_longer_awaited(
    runs: Runs, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first the branch is settling; once its patience is over it is not, says why, and the engine is told."""
    branch = BRANCHES[0]
    hold(runs, branch)
    told = threading.Event()
    warmer = make(changed=told.set)
    assert verdict(warmer, branch).settling
    monkeypatch.setattr(warmup, "PATIENCE_S", 0.0)
    assert told.wait(PATIENCE_S)
    assert not verdict(warmer, branch).settling
    state = verdict(warmer, branch)
    assert state.readiness is Readiness.LOADING
    assert "longer than" in (state.reason or "")


def test_one_branch_has_one_run_at_a_time(runs: Runs, make: Make) -> None:
    """A branch that is loaded again while its run hangs waits for that run."""
    branch = BRANCHES[0]
    hold(runs, branch)
    warmer = make()
    verdict(warmer, branch)
    eventually(lambda: runs.under_way == 1)
    for _ in range(5):
        warmer.forget(branch.name)
        verdict(warmer, branch)
    verdict(warmer, BRANCHES[1])
    eventually(lambda: ready(warmer, BRANCHES[1]))
    assert runs.begun.count(branch.name) == 1
    runs.gates[branch.name].set()
    eventually(lambda: ready(warmer, branch))
    assert runs.begun.count(branch.name) == 2


def test_the_given_order_is_kept_and_failed_branches_come_last(
    runs: Runs, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time: the named ones, then the others, and a retry only when nothing new waits."""
    monkeypatch.setattr(warmup, "AT_ONCE", 1)
    monkeypatch.setattr(warmup, "RETRY_S", 0.0)
    failing, first, second, other = BRANCHES[:4]
    runs.errors[failing.name] = InferenceFailed("no")
    hold(runs, failing)
    warmer = make((first.name, second.name))
    verdict(warmer, failing)
    eventually(lambda: runs.begun == [failing.name])
    for branch in (other, second, first):
        verdict(warmer, branch)
    runs.gates[failing.name].set()
    eventually(lambda: runs.begun[:5] == [n.name for n in (failing, first, second, other, failing)])
    assert "first run failed: no" in (verdict(warmer, failing).reason or "")


def test_a_server_that_is_away_says_nothing_of_the_branch(
    runs: Runs, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The branch still waits for its first run, which is made once the server is back."""
    monkeypatch.setattr(warmup, "_AWAY_RETRY_S", 0.01)
    branch = BRANCHES[0]
    runs.errors[branch.name] = TritonUnavailable("away")
    warmer = make()
    verdict(warmer, branch)
    eventually(lambda: len(runs.begun) > 2)
    assert verdict(warmer, branch).readiness is Readiness.LOADING
    runs.errors.clear()
    eventually(lambda: ready(warmer, branch))


def test_a_defect_of_ours_ends_in_the_branch_s_state(runs: Runs, make: Make) -> None:
    """An exception that is none of ours: the branch isn't served, with the exception's name, and others are."""
    runs.errors[BRANCHES[0].name] = ZeroDivisionError()
    warmer = make()
    for branch in BRANCHES[:2]:
        verdict(warmer, branch)
    eventually(lambda: ready(warmer, BRANCHES[1]))
    eventually(lambda: verdict(warmer, BRANCHES[0]).readiness is Readiness.UNAVAILABLE)
    assert "ZeroDivisionError" in (verdict(warmer, BRANCHES[0]).reason or "")


def test_a_branch_that_is_loaded_all_the_time_gets_few_lines(
    runs: Runs, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty loads in a minute, every other run of which fails: at most four lines."""
    monkeypatch.setattr(warmup, "_MINUTE_S", 10 * PATIENCE_S)
    caplog.set_level(logging.INFO, "app.engine.warmup")
    branch = BRANCHES[0]
    warmer = make()
    for number in range(50):
        runs.errors = {branch.name: InferenceFailed(str(number))} if number % 2 else {}
        warmer.forget(branch.name)
        eventually(lambda: verdict(warmer, branch).readiness is not Readiness.LOADING)
    assert 2 <= len([r for r in caplog.records if r.levelno >= logging.INFO]) <= 4
