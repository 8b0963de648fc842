"""Shared parts of all pipelines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any

import pytest
from support.models.engines import colour_detector
from support.models.repository import CATALOGUE
from support.waiting import PATIENCE_S

from app import errors
from app.deadline import Deadline
from app.engine.base import Lease, ModelState, Weights
from app.engine.fake import FakeEngine
from app.pipelines.base import STAGES, ReadinessByName, Router, Served, Timings, leased, provenance, wishes_of
from routing.catalogue import Branch
from routing.policy import ERROR_CODES, Decision, FrameFacts, PassedOver, Readiness, Wishes

FRAME = FrameFacts(300, 200)
BRANCH = CATALOGUE.branches["yolo11n_320"]
ERRORS = {
    Readiness.LOADING: errors.ModelNotReady,
    Readiness.UNAVAILABLE: errors.ModelNotReady,
    Readiness.CONTRACT_MISMATCH: errors.ModelNotReady,
    Readiness.WEIGHTS_MISSING: errors.WeightsMissing,
    Readiness.OUT_OF_MEMORY: errors.InsufficientGpuMemory,
    Readiness.MISSING: errors.ModelNotFound,
    Readiness.UNREACHABLE: errors.TritonUnavailable,
    Readiness.SEVERAL_SERVERS: errors.SeveralServers,
}


class Stuck:
    """An engine whose models are all in one state."""

    name = "stuck"
    transport = "inprocess"

    def __init__(self, state: Readiness, reason: str | None = None) -> None:
        self._states = {name: ModelState(name, state, reason) for name in CATALOGUE.models}

    def ready(self) -> Mapping[str, ModelState]:
        return self._states

    def lease(self, branch: Branch, deadline: Deadline) -> AbstractContextManager[Lease]:
        raise errors.Overloaded(f"no lease of {branch.name} within {deadline.remaining()} s")

    def close(self) -> None:
        """Nothing to release."""


def test_every_state_that_is_not_ready_is_translated() -> None:
    """The table of this test speaks of every state that routing has an error for, so none is forgotten."""
    assert set(ERRORS) == set(ERROR_CODES) == set(Readiness) - {Readiness.READY}


@pytest.mark.parametrize("state", ERRORS, ids=str)
def test_routing_errors_become_errors_of_the_domain(state: Readiness) -> None:
    """Each state raises its own error, which names the branch, the rule and what the engine knows."""
    router = Router(CATALOGUE, Stuck(state, "because of the moon"), "n")
    with pytest.raises(errors.GatewayError) as failure:
        router.decide("detect", FRAME, Wishes())
    assert type(failure.value) is ERRORS[state]
    assert "yolo11n_320" in failure.value.detail
    assert "max(300, 200) <= 320" in failure.value.detail
    assert "because of the moon" in failure.value.detail


@pytest.mark.parametrize(
    ("wishes", "error"),
    [
        (Wishes(size=500), errors.InvalidParameter),
        (Wishes(tier="huge"), errors.InvalidParameter),
        (Wishes(variant="q"), errors.InvalidParameter),
        (Wishes(branch="yolo12n_320"), errors.ModelNotFound),
    ],
)
def test_wishes_that_make_no_sense_are_the_caller_s_error(
    wishes: Wishes, error: type[errors.GatewayError]
) -> None:
    """Values are refused before readiness is looked at."""
    with pytest.raises(error):
        Router(CATALOGUE, Stuck(Readiness.UNREACHABLE)).decide("detect", FRAME, wishes)


@pytest.mark.parametrize("family", CATALOGUE.families)
def test_every_family_is_decided(family: str) -> None:
    """With everything ready each family has a branch for a frame, of the router's variant where it has that one."""
    decision = Router(CATALOGUE, Stuck(Readiness.READY), "s").decide(family, FRAME, Wishes())
    assert decision.branch.family == family
    assert decision.branch.variant == {"detect": "s", "flow": "small"}.get(family)


def test_without_a_variant_the_catalogue_s_serves() -> None:
    """The router's variant is a setting; unset, the baseline's x is meant."""
    decision = Router(CATALOGUE, Stuck(Readiness.READY)).decide("detect", FRAME, Wishes())
    assert decision.branch.name == "yolo11x_320"


@pytest.mark.parametrize(
    ("text", "wishes"),
    [
        (None, Wishes()),
        ("640", Wishes(size=640)),
        ("medium", Wishes(tier="medium")),
        ("yolo11n_640", Wishes(branch="yolo11n_640")),
        ("", Wishes(branch="")),
        ("-640", Wishes(branch="-640")),
        ("9" * 5000, Wishes(branch="9" * 5000)),
    ],
)
def test_one_parameter_names_a_branch_a_tier_or_a_size(text: str | None, wishes: Wishes) -> None:
    """A value that is no tier and no plausible size is a name, which routing finds or refuses."""
    assert wishes_of(text) == wishes
    assert wishes_of(text, "n", fallback=True) == dataclasses.replace(wishes, variant="n", fallback=True)


def test_readiness_is_read_off_the_states() -> None:
    """Routing sees names and states, nothing of the engine."""
    states = FakeEngine(CATALOGUE, {"yolo11n_320": colour_detector}).ready()
    assert ReadinessByName(states)["yolo11n_320"] is Readiness.READY
    assert ReadinessByName(states)["yolo11n_640"] is Readiness.MISSING


def test_stages_add_up_even_when_they_fail() -> None:
    """Each stage is counted in milliseconds, a failing one too; those that never ran are zero."""
    timings = Timings()
    for _ in range(2):
        with suppress(ValueError), timings.stage("decode"):
            sum(range(10_000))
            raise ValueError
    once = timings.ms["decode"]
    with timings.stage("decode"):
        sum(range(10_000))
    assert 0 < once < timings.ms["decode"] < 60_000
    assert {name: ms for name, ms in timings.ms.items() if name != "decode"} == dict.fromkeys(
        set(STAGES) - {"decode"}, 0.0
    )


def test_waiting_for_a_lease_is_counted_and_holding_it_is_not() -> None:
    """Stage `queue` ends where the lease begins."""
    engine = FakeEngine(CATALOGUE, {"yolo11n_320": colour_detector})
    timings = Timings()
    with leased(engine, BRANCH, Deadline.after(PATIENCE_S), timings) as lease:
        waited = timings.ms["queue"]
        assert waited > 0
        lease.run(Deadline.after(PATIENCE_S))
    assert timings.ms["queue"] == waited
    assert timings.ms["infer"] == 0


def test_an_overloaded_engine_is_not_hidden() -> None:
    """The lease's refusal goes through as it is."""
    with (
        pytest.raises(errors.Overloaded),
        leased(Stuck(Readiness.READY), BRANCH, Deadline.after(PATIENCE_S), Timings()),
    ):
        pytest.fail("there is no lease")


def _served(name: str, kind: str = "pretrained", **decided: Any) -> Served:
    branch = CATALOGUE.branches[name]
    decision = Decision(branch, "rule", "rule: a test", **decided)
    model = ModelState(name, Readiness.READY, weights=Weights("sha256:00", kind))
    return Served(CATALOGUE[branch.family], decision, model, Timings())


def test_random_weights_are_warned_of_beside_the_decision_s_warnings() -> None:
    """Only what is random is called so."""
    assert _served("yolo11n_320", warnings=("small",)).warnings == ["small"]
    (small, random) = _served("yolo11n_320", "random", warnings=("small",)).warnings
    assert small == "small"
    assert "yolo11n_320" in random
    assert "random" in random


def test_the_branch_of_an_answer_says_what_was_passed_over() -> None:
    """The object of the contract, with the reasons beside it."""
    served = _served("yolo11n_640", passed_over=(PassedOver("yolo11n_960", "not ready"),))
    assert served.branch() == {
        "name": "yolo11n_640",
        "family": "detect",
        "tier": "medium",
        "size": 640,
        "variant": "n",
        "why": "rule: a test",
        "passed_over": [{"branch": "yolo11n_960", "reason": "not ready"}],
    }


def test_provenance_covers_all_frames_once() -> None:
    """Two frames of one model and one of another are two entries, one mapping, one signature."""
    frames = [_served("yolo11n_320"), _served("midas_256"), _served("yolo11n_320")]
    document = provenance(frames)
    assert [used["model_name"] for used in document["models_used"]] == ["midas_256", "yolo11n_320"]
    assert document["resolved_model_mapping"] == {
        "core_depth_midas": "midas_256",
        "core_object_detections": "yolo11n_320",
    }
    assert document == provenance(reversed(frames))
    assert document["model_signature"] != provenance(frames[:1])["model_signature"]
