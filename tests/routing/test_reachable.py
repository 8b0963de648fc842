"""The branches that are worth loading are exactly those that routing can choose, the most wanted first."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing import catalogue as catalogues
from routing.policy import FrameFacts, Readiness, RoutingError, Wishes, route
from routing.reachable import Service, default_branch, loading_order, of_service, reachable

CATALOGUE = catalogues.load()
SIDES = sorted(
    {1, 4096, *(s for b in CATALOGUE.branches.values() if b.max_side for s in (b.max_side, b.max_side + 1))}
)
NAMES = tuple(CATALOGUE.branches)
BASELINE = (
    "yolo11x_640", "midas_512", "raft_256", "clip_image_224", "clip_text", "places365_resnet50_224",
    "midas_256", "yolo11x_320", "clip_image_336", "places365_resnet50_336", "midas_384", "raft_384",
    "clip_image_448", "places365_resnet50_448", "raft_512", "yolo11x_960",
)  # fmt: skip


def names(branches: object) -> list[str]:
    return [branch.name for branch in branches]  # type: ignore[attr-defined]  # branches


@settings(max_examples=400)
@given(
    st.sampled_from(sorted(CATALOGUE.families)),
    st.builds(
        Wishes,
        branch=st.one_of(st.none(), st.sampled_from(NAMES)),
        tier=st.sampled_from([None, None, "small", "medium", "large"]),
        size=st.sampled_from([None, None, 224, 256, 320, 640, 960]),
        variant=st.sampled_from([None, "n", "x", "small", "large"]),
        fallback=st.booleans(),
    ),
    st.sampled_from([None, "n", "x"]),
    st.booleans(),
    st.sampled_from(SIDES),
    st.fixed_dictionaries({name: st.sampled_from([Readiness.READY, Readiness.LOADING]) for name in NAMES}),
)
def test_whatever_routing_chooses_is_reachable(
    family: str, wishes: Wishes, variant: str | None, compact: bool, side: int, ready: Mapping[str, Readiness]
) -> None:
    """For any frame, wish and readiness the branch that serves is among the reachable ones."""
    frame = FrameFacts(side, 1)
    try:
        decision = route(CATALOGUE[family], frame, wishes, ready, variant, "by bytes" if compact else "")
    except RoutingError:
        return
    found = reachable(CATALOGUE[family], wishes, variant, compact=compact)
    assert decision.branch.name in names(found)


@pytest.mark.parametrize(
    ("family", "wishes", "compact", "expected"),
    [
        ("detect", Wishes(), False, ["yolo11n_320", "yolo11n_640", "yolo11n_960"]),
        ("detect", Wishes(variant="s"), False, ["yolo11s_320", "yolo11s_640", "yolo11s_960"]),
        ("detect", Wishes(size=640), True, ["yolo11n_640", "yolo11n_640_uint8"]),
        ("detect", Wishes(branch="yolo11x_320"), True, ["yolo11x_320"]),
        ("detect", Wishes(branch="yolo11n_640", fallback=True), False,
         ["yolo11n_320", "yolo11n_320_uint8", "yolo11n_640"]),
        ("detect", Wishes(branch="nobody"), False, []),
        ("depth", Wishes(variant="n"), False, []),
        ("depth", Wishes(tier="medium", fallback=True), False, ["midas_256", "midas_384"]),
        ("flow", Wishes(), False, ["raft_256", "raft_384", "raft_512"]),
        ("clip_text", Wishes(), False, ["clip_text"]),
    ],
)  # fmt: skip
def test_wishes_reach_these_branches(family: str, wishes: Wishes, compact: bool, expected: list[str]) -> None:
    """With the default variant n: the variant's branches, the one that is named, and what may stand in for it."""
    assert names(reachable(CATALOGUE[family], wishes, "n", compact=compact)) == expected


def test_a_service_loads_its_variant_with_the_usual_branches_first() -> None:
    """The branch of most frames per family comes first, then the rest from small to large; no other variant or
    UINT8 copy.
    """
    there = frozenset(NAMES)
    assert names(of_service(CATALOGUE, Service(there=there))) == list(BASELINE)
    detectors = [n for n in names(of_service(CATALOGUE, Service("n", there=there))) if n.startswith("yolo")]
    assert detectors == ["yolo11n_640", "yolo11n_320", "yolo11n_960"]


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (Service("n", there=frozenset(NAMES)), ["yolo11n_640", "yolo11n_320", "yolo11n_960"]),
        (Service("n", compact=True, there=frozenset(NAMES)),
         ["yolo11n_640", "yolo11n_320", "yolo11n_960",
          "yolo11n_320_uint8", "yolo11n_640_uint8", "yolo11n_960_uint8"]),
        (Service("n", required=frozenset({"yolo11s_320"}), there=frozenset(NAMES)),
         ["yolo11n_640", "yolo11n_320", "yolo11n_960", "yolo11s_320"]),
        (Service(None, there=frozenset({"yolo11n_320", "yolo11s_640", "yolo11n_320_uint8"})),
         ["yolo11x_640", "yolo11x_320", "yolo11x_960", "yolo11n_320", "yolo11s_640"]),
        (Service(None), ["yolo11x_640", "yolo11x_320", "yolo11x_960"]),
    ],
    ids=["variant", "twins", "required", "another variant is all there is", "nothing is built"],
)  # fmt: skip
def test_settings_reach_these_detectors(service: Service, expected: list[str]) -> None:
    """The default variant, twins where frames travel as UINT8, what is required, and what there is in its place."""
    found = [name for name in names(of_service(CATALOGUE, service)) if name.startswith("yolo")]
    assert found == expected


def test_the_default_branch_serves_a_large_frame_while_nothing_optional_is_ready() -> None:
    """Routing chooses the default branch for 1920x1080 with only it ready."""
    for family, variant in itertools.product(CATALOGUE.families.values(), ("n", "x")):
        branch = default_branch(family, variant)
        ready = {branch.name: Readiness.READY}
        facts = None if branch.size is None else FrameFacts(1920, 1080)
        assert route(family, facts, Wishes(), ready, variant).branch == branch


def test_an_order_loses_nothing() -> None:
    """Every branch is in it once, other variants after the default ones, twins last."""
    order = names(loading_order(CATALOGUE, CATALOGUE.branches.values(), "n"))
    assert sorted(order) == sorted(NAMES)
    assert order[0] == "yolo11n_640"
    assert order.index("yolo11s_320") > order.index("yolo11n_960")
    assert all(name.endswith("_uint8") for name in order[-15:])
