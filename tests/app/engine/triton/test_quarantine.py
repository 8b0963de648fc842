"""Quarantine by itself, and one attempt at a branch: pauses, order, and what ends them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from support.models.repository import CATALOGUE
from support.waiting import PATIENCE_S, eventually

from app.deadline import Deadline
from app.engine.base import ModelState
from app.engine.triton.model_control import NoModelControl, Reloader
from app.engine.quarantine import Recovery, Quarantine
from app.errors import InsufficientGpuMemory, ModelNotReady, TritonUnavailable
from routing.catalogue import Branch
from routing.policy import Readiness

DETECT, DEPTH = CATALOGUE.branches["yolo11n_320"], CATALOGUE.branches["midas_256"]
NO_MEMORY = InsufficientGpuMemory("out of memory")
Recover = Callable[[Branch, bool], Recovery]
Start = Callable[..., Quarantine]


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes quarantines with short pauses; closed at the end."""
    made: list[Quarantine] = []

    def build(recover: Recover, pause_s: float = 0.04, longest_s: float = 0.16) -> Quarantine:
        made.append(Quarantine(recover, lambda _: None, pause_s, longest_s))
        return made[-1]

    yield build
    for quarantine in made:
        quarantine.close()
        quarantine.join()


def test_the_pause_doubles_up_to_the_longest(start: Start) -> None:
    """1, 2, 4, 4 times the first one, each at least three quarters of that: a GPU that is full is not hammered."""
    times: list[float] = []

    def recover(branch: Branch, reloaded: bool) -> Recovery:
        times.append(time.monotonic())
        if len(times) < 5:
            raise NO_MEMORY
        return "reloaded"

    quarantine = start(recover)
    began = time.monotonic()
    quarantine.add(DETECT, NO_MEMORY)
    eventually(lambda: not quarantine.holds(DETECT.name))
    pauses = [after - before for before, after in pairwise([began, *times])]
    for pause, wanted in zip(pauses, (0.04, 0.08, 0.16, 0.16, 0.16), strict=True):
        assert pause >= 0.74 * wanted
    assert quarantine.counts() == (
        {DETECT.name: 1},
        frozenset(),
        {(DETECT.name, "out_of_memory"): 4, (DETECT.name, "reloaded"): 1},
    )


def test_one_branch_is_mended_at_a_time(start: Start) -> None:
    """Loading takes memory: two at once would take it from each other."""
    at_work, most = 0, 0

    def recover(branch: Branch, reloaded: bool) -> Recovery:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.05)
        at_work -= 1
        return "reloaded"

    quarantine = start(recover, pause_s=0.001)
    for branch in (DETECT, DEPTH):
        quarantine.add(branch, NO_MEMORY)
    eventually(lambda: not quarantine.counts()[1])
    assert most == 1


def test_whatever_goes_wrong_the_next_attempt_comes(start: Start) -> None:
    """An error of ours or a defect: it is said, counted, and tried again."""
    faults = iter([TritonUnavailable("gone fishing"), ZeroDivisionError("a defect")])
    said: list[str | None] = []

    def recover(branch: Branch, reloaded: bool) -> Recovery:
        said.append(quarantine.verdict(ModelState(DETECT.name, Readiness.READY)).reason)
        for fault in faults:
            raise fault
        return "ran"

    quarantine = start(recover)
    quarantine.add(DETECT, NO_MEMORY)
    eventually(lambda: not quarantine.holds(DETECT.name))
    assert "attempt 1 to reload it and run it is under way" in (said[0] or "")
    assert "attempt 1 to recover it failed: gone fishing; attempt 2" in (said[1] or "")
    assert "attempt 2 to recover it failed: ZeroDivisionError; attempt 3" in (said[2] or "")
    assert quarantine.counts()[2] == {(DETECT.name, "failed"): 2, (DETECT.name, "ran"): 1}


def test_only_what_has_no_memory_is_taken_out(start: Start) -> None:
    """Around a run: memory that runs out begins a quarantine, in which no run begins; another error doesn't."""
    quarantine = start(lambda *_: "ran", pause_s=3600.0, longest_s=3600.0)
    quarantine.refuse(DETECT.name)
    quarantine.note_failure(DETECT, ModelNotReady("unloaded by somebody"))
    assert not quarantine.holds(DETECT.name)
    failure = InsufficientGpuMemory("out of memory")
    quarantine.note_failure(DETECT, failure)
    assert 2700 <= (failure.retry_after or 0) <= 4500
    with pytest.raises(InsufficientGpuMemory, match="a run was out of memory"):
        quarantine.refuse(DETECT.name)
    quarantine.refuse(DEPTH.name)


def test_a_run_that_is_under_way_while_the_branch_is_unloaded_is_told_why(start: Start) -> None:
    """Not `model_not_ready`, which would be no reason to fall back."""
    quarantine = start(lambda *_: "ran", pause_s=3600.0, longest_s=3600.0)
    quarantine.add(DETECT, NO_MEMORY)
    with pytest.raises(InsufficientGpuMemory, match="a run was out of memory"):
        quarantine.note_failure(DETECT, ModelNotReady("not at ready state"))


def test_who_comes_back_is_tried_at_once(start: Start) -> None:
    """And as one that may have been reloaded; so is a branch, a part of which has been seen to be."""
    told: list[bool] = []

    def recover(branch: Branch, reloaded: bool) -> Recovery:
        told.append(reloaded)
        if len(told) == 1:
            raise NO_MEMORY
        return "ran"

    quarantine = start(recover, pause_s=3600.0, longest_s=3600.0)
    quarantine.add(DEPTH, NO_MEMORY)
    quarantine.note_reloads([DETECT.name])
    quarantine.try_now()
    eventually(lambda: len(told) == 1)
    quarantine.note_reloads(["midas_256_onnx"])
    quarantine.try_now()
    eventually(lambda: not quarantine.holds(DEPTH.name))
    assert told == [True, True]


def test_who_comes_back_during_an_attempt_is_tried_again_at_once(start: Start) -> None:
    """An attempt that fails because the server is away doesn't wait for the longest pause."""
    told: list[bool] = []

    def recover(branch: Branch, reloaded: bool) -> Recovery:
        told.append(reloaded)
        if len(told) == 1:
            quarantine.try_now()
            raise TritonUnavailable("away")
        return "ran"

    quarantine = start(recover, pause_s=3600.0, longest_s=3600.0)
    quarantine.add(DETECT, NO_MEMORY)
    quarantine.try_now()
    eventually(lambda: not quarantine.holds(DETECT.name))
    assert told == [True, True]


def test_the_thousandth_failure_has_a_pause_too(start: Start) -> None:
    """Doubled so often a number would be too large to be one."""
    quarantine = start(lambda *_: "ran")
    assert quarantine._pause(5000) <= 0.16 * 1.25


def test_closing_waits_for_no_pause(start: Start) -> None:
    """However long it is."""
    quarantine = start(lambda *_: "ran", pause_s=3600.0, longest_s=3600.0)
    quarantine.add(DETECT, NO_MEMORY)
    started = time.monotonic()
    quarantine.close()
    quarantine.join()
    assert time.monotonic() - started < PATIENCE_S


class Server:
    """A server's model control: it does what it is told, or not; `said` is what it was told."""

    def __init__(self, state: str = "READY") -> None:
        self.state = state
        self.said: list[str] = []
        self.refuses = self.hangs = False

    def model_states(self) -> dict[str, str]:
        return {DETECT.name: self.state}

    def unload(self, model: str) -> None:
        if self.refuses:
            raise NoModelControl("explicit model load / unload is not allowed")
        self.said.append(f"unload {model}")
        self.state = "UNAVAILABLE"

    def load(self, model: str, timeout_s: float) -> None:
        assert timeout_s > 0
        self.said.append(f"load {model}")
        self.state = "READY"
        if self.hangs:
            raise TritonUnavailable("no answer in time")


def reloader(server: Server, run: Callable[[Branch, Deadline], None], load_s: float = 5.0) -> Reloader:
    return Reloader(server, run, threading.Event(), run_s=1.0, load_s=load_s)


def runs(branch: Branch, deadline: Deadline) -> None:
    """A run that goes well."""


def fails(branch: Branch, deadline: Deadline) -> None:
    """A run without memory."""
    raise NO_MEMORY


def test_a_branch_is_unloaded_loaded_and_run() -> None:
    """In this order; the run's failure is the attempt's."""
    server = Server()
    assert reloader(server, runs)(DETECT, reloaded=False) == "reloaded"
    assert server.said == ["unload yolo11n_320", "load yolo11n_320"]
    with pytest.raises(InsufficientGpuMemory):
        reloader(server, fails)(DETECT, reloaded=False)


def test_what_was_loaded_anew_elsewhere_is_left_alone_if_it_runs() -> None:
    """And loaded once more in the same attempt if it doesn't."""
    server = Server()
    assert reloader(server, runs)(DETECT, reloaded=True) == "ran"
    assert server.said == []
    with pytest.raises(InsufficientGpuMemory):
        reloader(server, fails)(DETECT, reloaded=True)
    assert server.said == ["unload yolo11n_320", "load yolo11n_320"]


def test_what_took_too_long_to_load_is_run_when_it_is_there() -> None:
    """The answer to `load` got lost, the model is READY: it isn't unloaded again."""
    server = Server()
    server.hangs = True
    attempt = reloader(server, runs)
    with pytest.raises(TritonUnavailable):
        attempt(DETECT, reloaded=False)
    assert attempt(DETECT, reloaded=False) == "ran"
    assert server.said == ["unload yolo11n_320", "load yolo11n_320"]


def test_what_never_settles_is_no_end() -> None:
    """A model that is being unloaded for ever, because a run on it hangs: the attempt ends with an error."""
    with pytest.raises(ModelNotReady, match="still being loaded or unloaded"):
        reloader(Server("UNLOADING"), runs, load_s=0.1)(DETECT, reloaded=False)


def test_a_server_that_refuses_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """The branch is only run, and one warning says why; a server that was started again may allow it."""
    server = Server()
    server.refuses = True
    attempt = reloader(server, runs)
    with caplog.at_level("WARNING"):
        assert [attempt(DETECT, reloaded=False) for _ in range(2)] == ["ran", "ran"]
    assert caplog.text.count("--model-control-mode=explicit") == 1
    server.refuses = False
    assert attempt(DETECT, reloaded=False) == "reloaded"
