"""Conditions that make `/readyz` red, before it has been green and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from support.models.repository import CATALOGUE

from app.engine.base import ModelState
from app.engine.fake import FakeEngine
from app.pipelines.base import Router
from app.pipelines.readiness import ReadyProbe
from routing.policy import Readiness

DETECT, OTHER, OPTIONAL = "yolo11n_640", "yolo11n_320", "yolo11n_960"
USUAL = (DETECT, OTHER, OPTIONAL)
NOT_READY = [readiness for readiness in Readiness if readiness is not Readiness.READY]


class Engine(FakeEngine):
    """Says of its models what the test says."""

    def __init__(self) -> None:
        super().__init__(CATALOGUE, {})
        self.states = {n: ModelState(n, Readiness.MISSING, "not there") for n in CATALOGUE.models}

    def ready(self) -> Mapping[str, ModelState]:
        return self.states

    def say(self, readiness: Readiness, *names: str, settling: bool = False) -> None:
        for name in names:
            self.states[name] = replace(self.states[name], readiness=readiness, settling=settling)


@pytest.fixture
def engine() -> Engine:
    return Engine()


def failing(probe: ReadyProbe) -> set[str]:
    return {fault["name"] for fault in probe.faults()}


def make(engine: Engine, *required: str) -> ReadyProbe:
    return ReadyProbe(Router(CATALOGUE, engine, "n"), required, USUAL)


def test_at_first_the_usual_branches_are_waited_for(engine: Engine) -> None:
    """Models that this process loads and runs first keep it red by name, until each is ready or given up."""
    probe = make(engine)
    engine.say(Readiness.LOADING, *USUAL, settling=True)
    assert failing(probe) == set(USUAL)
    engine.say(Readiness.READY, DETECT)
    assert failing(probe) == {OTHER, OPTIONAL}
    engine.say(Readiness.UNAVAILABLE, OTHER)
    assert failing(probe) == {OPTIONAL}
    engine.say(Readiness.READY, OPTIONAL)
    assert failing(probe) == set()


@pytest.mark.parametrize("name", [OPTIONAL, "yolo11s_640", "midas_256"])
def test_what_the_server_loads_or_what_hangs_is_not_waited_for(engine: Engine, name: str) -> None:
    """`loading` that isn't settling, and branches that requests reach only by name, delay nothing."""
    probe = make(engine)
    engine.say(Readiness.READY, DETECT)
    engine.say(Readiness.LOADING, name, settling=name not in USUAL)
    assert failing(probe) == set()


def test_without_any_branch_it_is_red_and_says_what_to_do(engine: Engine) -> None:
    """Nothing loads, nothing is ready: one fault, of the engine."""
    (fault,) = make(engine).faults()
    assert fault["name"] == engine.name
    assert "make models" in fault["reason"]


@pytest.mark.parametrize("readiness", NOT_READY)
def test_once_green_an_optional_model_reddens_nothing(engine: Engine, readiness: Readiness) -> None:
    """Whatever becomes of one, or of all of them, as long as the server is there."""
    probe = make(engine)
    engine.say(Readiness.READY, *USUAL)
    assert failing(probe) == set()
    engine.say(readiness, *USUAL, settling=True)
    assert failing(probe) == set()


@pytest.mark.parametrize("readiness", NOT_READY)
def test_a_required_branch_reddens_at_any_time(engine: Engine, readiness: Readiness) -> None:
    """Before and after the first green, whatever is wrong with it; nothing else is waited for."""
    probe = make(engine, DETECT)
    engine.say(readiness, DETECT)
    engine.say(Readiness.LOADING, OTHER, OPTIONAL, settling=True)
    assert failing(probe) == {DETECT}
    engine.say(Readiness.READY, DETECT)
    assert failing(probe) == set()
    engine.say(readiness, DETECT)
    assert failing(probe) == {DETECT}


def test_a_server_that_is_away_reddens_at_any_time(engine: Engine) -> None:
    """Before and after the first green, as one fault, of the engine."""
    probe = make(engine)
    names = tuple(CATALOGUE.models)
    engine.say(Readiness.UNREACHABLE, *names)
    assert failing(probe) == {engine.name}
    engine.say(Readiness.READY, DETECT)
    assert failing(probe) == set()
    engine.say(Readiness.UNREACHABLE, *names)
    assert failing(probe) == {engine.name}


def test_a_name_that_no_branch_has_keeps_it_red(engine: Engine) -> None:
    """A pattern that matches nothing is told as missing."""
    probe = make(engine, "yolo12*", DETECT)
    engine.say(Readiness.READY, DETECT)
    assert failing(probe) == {"yolo12*"}
