"""Every family with sizes serves the next smaller branch when a run of a larger one has no memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from support.models.repository import CATALOGUE
from support.waiting import PATIENCE_S

from app import context
from app.deadline import Deadline
from app.engine.fake import Arrays, FakeEngine
from app.errors import InferenceFailed, InsufficientGpuMemory
from app.media.image import ImageLimits
from app.metrics import Metrics
from app.pipelines.base import Framed, Router, Served, Timings
from app.pipelines.clip import ImagePipeline
from app.pipelines.depth import DepthPipeline
from app.pipelines.detect import DetectParameters, DetectPipeline
from app.pipelines.flow import FlowPipeline
from app.pipelines.places import PlacesPipeline
from routing.policy import FrameFacts, Wishes
from routing.rollout import POSITIONS, Rollout
from routing.versions import with_versions

RGB = np.zeros((480, 600, 3), np.uint8)
Serve = Callable[[Router, Framed], Served]


def exhausted(inputs: Arrays, outputs: Arrays) -> None:
    """A model without memory."""
    raise InsufficientGpuMemory("no memory")


def broken(inputs: Arrays, outputs: Arrays) -> None:
    """A model that fails for another reason."""
    raise InferenceFailed("no such luck")


def works(inputs: Arrays, outputs: Arrays) -> None:
    """A model that answers zeros."""


def router(family: str, **functions: Callable[[Arrays, Arrays], None]) -> Router:
    """All branches of the family work, but for those that are named by their size (`s640`)."""
    branches = CATALOGUE[family].branches
    made = {branch.name: functions.get(f"s{branch.size}", works) for branch in branches}
    return Router(CATALOGUE, FakeEngine(CATALOGUE, made), "n")


def framed(wishes: Wishes) -> Framed:
    facts = FrameFacts(RGB.shape[1], RGB.shape[0])
    return Framed(facts, wishes, Deadline.after(PATIENCE_S), Timings())


def rest() -> tuple[Metrics, ImageLimits]:
    return Metrics(), ImageLimits(10**7)


FAMILIES: dict[str, Serve] = {
    "detect": lambda r, f: DetectPipeline(r, *rest()).on_frame(RGB, f, DetectParameters()).served,
    "depth": lambda r, f: DepthPipeline(r, *rest()).on_frame(RGB, f).served,
    "flow": lambda r, f: FlowPipeline(r, *rest()).on_frames(RGB, RGB, f).served,
    "clip_image": lambda r, f: ImagePipeline(r, *rest()).on_frame(RGB, f).served,
    "places": lambda r, f: PlacesPipeline(r, *rest()).on_frame(RGB, f).served,
}


def sizes(family: str) -> list[int]:
    variant = CATALOGUE[family].variant_or_default("n")
    return [branch.size or 0 for branch in CATALOGUE[family].of_variant(variant)]


def test_no_family_with_sizes_is_forgotten() -> None:
    """A family of the catalogue that has more than one size is one of those below."""
    assert {*FAMILIES} == {name for name in CATALOGUE.families if len({*sizes(name)}) > 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_one_smaller_then_the_next(family: str) -> None:
    """Two sizes without memory: the third answers, degraded, and names both."""
    small, medium, large = sizes(family)
    found = router(family, **{f"s{medium}": exhausted, f"s{large}": exhausted})
    served = FAMILIES[family](found, framed(Wishes(size=large, fallback=True)))
    assert (served.decision.branch.size, served.model.name) == (small, served.decision.branch.name)
    assert served.decision.degraded
    passed = [row["branch"] for row in served.branch()["passed_over"]]
    assert [CATALOGUE.branches[name].size for name in passed] == [large, medium]


@pytest.mark.parametrize("family", FAMILIES)
def test_without_fallback_or_anything_smaller_it_fails(family: str) -> None:
    """The error is that of the branch that had no memory."""
    small, _, large = sizes(family)
    for wishes in (Wishes(size=large), Wishes(size=small, fallback=True)):
        with pytest.raises(InsufficientGpuMemory, match="no memory"):
            FAMILIES[family](router(family, **{f"s{wishes.size}": exhausted}), framed(wishes))


@pytest.mark.parametrize("family", FAMILIES)
def test_other_failures_are_no_reason_for_another_branch(family: str) -> None:
    """A model that fails otherwise is not hidden by a smaller one."""
    large = sizes(family)[-1]
    with pytest.raises(InferenceFailed):
        FAMILIES[family](router(family, **{f"s{large}": broken}), framed(Wishes(size=large, fallback=True)))


def test_a_twin_without_memory_is_followed_by_the_next_smaller_twin() -> None:
    """Its branch has the same weights, so both are passed over."""
    twins = CATALOGUE["detect"].every_branch
    made = {branch.name: exhausted if branch.size == 640 else works for branch in twins}
    found = Router(CATALOGUE, FakeEngine(CATALOGUE, made), "n", "uint8")
    served = FAMILIES["detect"](found, framed(Wishes(size=640, fallback=True)))
    assert (served.model.name, served.decision.degraded) == ("yolo11n_320_uint8", True)
    passed = [(row["branch"], row["reason"]) for row in served.branch()["passed_over"]]
    assert passed == [("yolo11n_640_uint8", "out of memory"), ("yolo11n_640", "out of memory")]


@pytest.mark.parametrize("fault", [exhausted, broken])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_version_that_only_a_rollout_has_chosen_is_replaced(
    family: str, fault: Callable[[Arrays, Arrays], None]
) -> None:
    """The default version answers, not degraded, and says why; a version that is asked for fails as any branch."""
    known = with_versions(CATALOGUE, {branch.name: ("2",) for branch in CATALOGUE[family].branches})
    made = {branch.name: works for branch in known[family].branches}
    made |= {one.name: fault for branch in known[family].branches for one in branch.versions}
    rolled = {name: Rollout(name, "2", POSITIONS) for name in made}
    over = Router(known, FakeEngine(known, made), "n", rollouts=rolled)
    token = context.enter(context.CurrentRequest("request"))
    try:
        served = FAMILIES[family](over, framed(Wishes()))
        assert (served.decision.kind, served.decision.degraded, served.decision.branch.version_of) == (
            "rule", False, None,
        )  # fmt: skip
        assert [passed.branch for passed in served.decision.passed_over] == [
            f"{served.decision.branch.name}_v2"
        ]
        for wishes in (Wishes(version="2"), Wishes(kept=((served.decision.branch.name, "2"),))):
            with pytest.raises((InsufficientGpuMemory, InferenceFailed)):
                FAMILIES[family](over, framed(wishes))
    finally:
        context.leave(token)
