"""Rollouts: which share of the keys a version serves, and that nobody loses it again while the share grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import catalogue, versions
from routing.policy import FrameFacts, Readiness, RoutingError, Versions, Wishes, route
from routing.rollout import POSITIONS, base_of, chosen, position, rollouts_in

KNOWN = versions.with_versions(catalogue.load(), {"yolo11n_640": ("2", "10"), "midas_384": ("3",)})
DETECT = KNOWN["detect"]
FRAME = FrameFacts(640, 480)
READY = dict.fromkeys(KNOWN.models, Readiness.READY)
TENTH = chosen(rollouts_in("yolo11n_640=2:10%"), 999)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("yolo11n_640=2:10%", {"yolo11n_640": ("2", 1000, "10%")}),
        (
            " a=1:0% , b=20:12.5%,c=3:100%,",
            {"a": ("1", 0, "0%"), "b": ("20", 1250, "12.5%"), "c": ("3", 10000, "100%")},
        ),
        ("a=2:0.01%", {"a": ("2", 1, "0.01%")}),
    ],
)
def test_rollouts_are_read(text: str, found: dict[str, tuple[str, int, str]]) -> None:
    """Branch, version and percentage."""
    read = rollouts_in(text)
    assert {name: (one.version, one.positions, one.percent) for name, one in read.items()} == found


@pytest.mark.parametrize(
    "text",
    ["a", "a=2", "a=2:10", "a=0:10%", "a=02:10%", "a=x:1%", "=2:1%", "a=2:101%", "a=2:-1%", "a=2:nan%", "a=2:1e9999%",
     "a=2:0.001%", "a=2:%", "a=2:1%,a=3:1%"],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    """The message names the word."""
    with pytest.raises(ValueError, match=r"^'?[a=]"):
        rollouts_in(text)


def test_positions_are_those_of_the_documentation() -> None:
    """Recorded, so that no release moves anybody: the first eight bytes of a SHA-256, modulo 10000."""
    assert [position("core_object_detections", key) for key in ("", "camera1", "camera2", "ü")] == [
        9166,
        9449,
        233,
        5204,
    ]


@given(st.text(), st.integers(0, POSITIONS), st.integers(0, POSITIONS))
def test_a_key_keeps_its_version_while_the_share_grows(key: str, one: int, other: int) -> None:
    """Those who get it at a percentage still do at a higher one; families of one component agree."""
    less, more = sorted((one, other))
    at = position("core_clip", key)
    assert 0 <= at < POSITIONS
    small, large = (rollouts_in(f"a=2:{positions / 100:.2f}%") for positions in (less, more))
    assert bool(chosen(small, at)) <= bool(chosen(large, at))


def test_the_shares_are_those_of_the_percentages() -> None:
    """About as many of many keys as the percentage says."""
    inside = sum(position("core_object_detections", f"key {number}") < 1000 for number in range(10_000))
    assert 900 < inside < 1100


def _decided(wishes: Wishes = Wishes(), **more: object) -> tuple[str, str, str]:  # noqa: B008  # it is frozen
    decision = route(DETECT, FRAME, wishes, more.pop("ready", READY), "n", **more)  # type: ignore[arg-type]
    return decision.branch.name, decision.kind, decision.why


def test_a_rollout_serves_where_nobody_names_a_version() -> None:
    """It is a reason of its own; a named branch is in it, too, and a named version isn't."""
    rolled = Versions(rollouts=TENTH)
    assert _decided(versions=rolled) == (
        "yolo11n_640_v2", "rollout", "rollout: version 2 serves 10% of keys (rule: 320 < max(640, 480) <= 640)",
    )  # fmt: skip
    assert _decided(Wishes(branch="yolo11n_640"), versions=rolled)[0] == "yolo11n_640_v2"
    assert _decided(Wishes(branch="yolo11n_640_uint8"), versions=rolled)[0] == "yolo11n_640_v2_uint8"
    assert _decided(versions=rolled, compact="as set")[0] == "yolo11n_640_v2_uint8"
    assert _decided(Wishes(version="1"), versions=rolled)[0] == "yolo11n_640"
    assert _decided(Wishes(branch="yolo11n_320"), versions=rolled)[0] == "yolo11n_320"
    assert _decided(Wishes(branch="yolo11n_640_v10"), versions=rolled)[0] == "yolo11n_640_v10"


def test_a_rollout_of_the_default_version_changes_nothing() -> None:
    """So it may stay in the settings after its version has become the default one."""
    rolled = Versions({"yolo11n_640": "2"}, TENTH)
    assert _decided(versions=rolled)[:2] == ("yolo11n_640", "rule")
    assert _decided(Wishes(version="2"), versions=rolled)[0] == "yolo11n_640"


@pytest.mark.parametrize("state", [one for one in Readiness if one is not Readiness.READY])
def test_a_version_that_is_not_ready_leaves_its_share_to_the_default_one(state: Readiness) -> None:
    """Whoever names it is refused, or gets a fallback that says so."""
    ready = {**READY, "yolo11n_640_v2": state}
    name, kind, why = _decided(ready=ready, versions=Versions(rollouts=TENTH))
    assert (name, kind) == ("yolo11n_640", "rule")
    assert ", version 2 " in why
    with pytest.raises(RoutingError) as refused:
        _decided(Wishes(version="2"), ready=ready)
    assert refused.value.branch == "yolo11n_640_v2"
    assert _decided(Wishes(version="2", fallback=True), ready=ready)[:2] == ("yolo11n_640", "fallback")


def test_an_unknown_version_is_refused_with_those_that_exist() -> None:
    """Numbers in their order."""
    for wishes, there in (
        (Wishes(version="7"), "has no version '7'; it has 1, 2, 10"),
        (Wishes(version="two"), "has no version 'two'; it has 1, 2, 10"),
        (Wishes(branch="yolo11n_640_v2", version="1"), "has no version '1'; it is version 2"),
        (Wishes(branch="yolo11n_320", version="2"), "has no version '2'; it has 1"),
    ):
        with pytest.raises(RoutingError, match=there) as refused:
            _decided(wishes)
        assert refused.value.code == "model_not_found"


def test_what_a_session_has_had_comes_before_a_rollout() -> None:
    """The session's version counts as long as it exists."""
    rolled = Versions(rollouts=TENTH)
    assert _decided(Wishes(kept=(("yolo11n_640", "1"),)), versions=rolled)[0] == "yolo11n_640"
    assert _decided(Wishes(kept=(("yolo11n_640", "10"),)), versions=rolled)[0] == "yolo11n_640_v10"
    assert _decided(Wishes(kept=(("yolo11n_640", "9"),)), versions=rolled)[0] == "yolo11n_640_v2"


def test_versions_and_twins_belong_to_their_branch() -> None:
    """The name in rollouts is that of the branch."""
    for name in (
        "yolo11n_640",
        "yolo11n_640_uint8",
        "yolo11n_640_v2",
        "yolo11n_640_v2_uint8",
        "yolo11n_640_v10",
    ):
        assert base_of(KNOWN.branches[name]) == "yolo11n_640"
