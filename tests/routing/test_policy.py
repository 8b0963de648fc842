"""Routing decides for everything, and says why."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing import catalogue as catalogues
from routing.catalogue import TIERS
from routing.policy import ERROR_CODES, Decision, FrameFacts, Readiness, RoutingError, Wishes, instead, route

CATALOGUE = catalogues.load()
ALL_READY = dict.fromkeys(CATALOGUE.branches, Readiness.READY)
CODES = {code for code, _ in ERROR_CODES.values()} | {"invalid_parameter"}

sides = st.integers(1, 20_000)
facts = st.builds(FrameFacts, sides, sides, st.none() | sides, st.none() | sides)
readiness = st.dictionaries(st.sampled_from(sorted(CATALOGUE.branches)), st.sampled_from(Readiness))
wishes = st.builds(
    Wishes,
    branch=st.none() | st.sampled_from(sorted(CATALOGUE.branches)) | st.text(max_size=12),
    tier=st.none() | st.sampled_from(TIERS) | st.text(max_size=6),
    size=st.none() | st.sampled_from([224, 256, 320, 336, 384, 448, 512, 640, 960]) | st.integers(-5, 5000),
    variant=st.none() | st.sampled_from([*"nsmlx", "small", "large"]) | st.text(max_size=2),
    fallback=st.booleans(),
)


@settings(max_examples=600)
@given(
    st.sampled_from(sorted(CATALOGUE.families)),
    st.none() | facts,
    wishes,
    readiness,
    st.sampled_from([None, *"nsmlx", "large"]),
    st.sampled_from(["", "tensors go as bytes"]),
)
def test_every_wish_ends_in_a_ready_branch_or_a_known_code(
    family: str,
    frame: FrameFacts | None,
    wish: Wishes,
    ready: Mapping[str, Readiness],
    variant: str | None,
    compact: str,
) -> None:
    """Routing is total: a ready branch of the family with a reason, or an error with one of the API's codes."""
    try:
        decision = route(CATALOGUE[family], frame, wish, ready, variant, compact)
    except RoutingError as error:
        assert error.code in CODES  # noqa: PT017  # either outcome is right, each in its form
        assert error.detail  # noqa: PT017  # ditto
        return
    assert decision.branch in CATALOGUE[family].every_branch
    assert ready[decision.branch.name] is Readiness.READY
    assert decision.why.startswith(f"{decision.kind}: ")
    assert decision.degraded is (decision.kind == "fallback")
    assert not decision.degraded or wish.fallback
    assert decision == route(CATALOGUE[family], frame, wish, ready, variant, compact)
    plain = route(CATALOGUE[family], frame, wish, ready, variant)
    assert decision.branch in (plain.branch, plain.branch.compact)
    assert (decision.kind, decision.passed_over, decision.warnings) == (
        plain.kind, plain.passed_over, plain.warnings,
    )  # fmt: skip
    _follow(family, decision, wish, ready)


def _follow(family: str, decision: Decision, wish: Wishes, ready: Mapping[str, Readiness]) -> None:
    """Follow the fallbacks as memory runs out again and again: never larger, never a failed one, and it ends."""
    failed: set[str] = set()
    while True:
        failed |= {*decision.branch.same_weights}
        try:
            smaller = instead(CATALOGUE[family], decision, wish, ready)
        except RoutingError as error:
            assert error.code == "insufficient_gpu_memory"  # noqa: PT017  # the end
            return
        assert ready[smaller.branch.name] is Readiness.READY
        assert smaller.branch.name not in failed
        assert (smaller.branch.size or 0) < (decision.branch.size or 0)
        assert smaller.branch.variant == decision.branch.variant
        decision = smaller


@settings(max_examples=500)
@given(st.sampled_from(sorted(set(CATALOGUE.families) - {"clip_text"})), sides, sides)
def test_a_larger_frame_never_takes_a_smaller_branch(family: str, one: int, other: int) -> None:
    """With everything ready the branch's size rises with the frame's longer side."""
    small, large = sorted((one, other))
    sizes = [
        route(CATALOGUE[family], FrameFacts(side, 1), Wishes(), ALL_READY).branch.size
        for side in (small, large)
    ]
    assert sizes[0] is not None
    assert sizes[1] is not None
    assert sizes[0] <= sizes[1]


@pytest.mark.parametrize(
    ("family", "side", "branch"),
    [
        ("detect", 1, "yolo11x_320"),
        ("detect", 320, "yolo11x_320"),
        ("detect", 321, "yolo11x_640"),
        ("detect", 640, "yolo11x_640"),
        ("detect", 641, "yolo11x_960"),
        ("depth", 320, "midas_256"),
        ("depth", 321, "midas_384"),
        ("depth", 448, "midas_384"),
        ("depth", 449, "midas_512"),
        ("flow", 448, "raft_384"),
        ("flow", 320, "raft_256"),
        ("flow", 4096, "raft_512"),
        ("clip_image", 321, "clip_image_336"),
        ("places", 449, "places365_resnet50_448"),
        ("clip_text", 5000, "clip_text"),
    ],
)
def test_thresholds_are_exact(family: str, side: int, branch: str) -> None:
    """The documented limits belong to the smaller branch, one pixel more to the next."""
    assert route(CATALOGUE[family], FrameFacts(side, 1), Wishes(), ALL_READY).branch.name == branch


def test_the_analysis_size_steers_and_the_frame_s_own_size_does_not() -> None:
    """A 4K frame that is analysed at 320 takes the small branch; one given side implies the other."""
    decision = route(CATALOGUE["detect"], FrameFacts(3840, 2160, 320, 180), Wishes(), ALL_READY)
    assert decision.branch.size == 320
    portrait = FrameFacts(1080, 1920, analysis_width=300)
    assert portrait.analysis_size == (300, 533)
    assert route(CATALOGUE["detect"], portrait, Wishes(), ALL_READY).branch.size == 640


def test_large_detection_is_passed_over_while_it_is_not_ready() -> None:
    """Above 640 the 640 branch serves without the 960 one: by rule, not degraded, in the contract's words."""
    ready = {**ALL_READY, "yolo11x_960": Readiness.UNAVAILABLE}
    decision = route(CATALOGUE["detect"], FrameFacts(810, 1080), Wishes(), ready)
    assert decision.branch.name == "yolo11x_640"
    assert decision.why == "rule: max(810, 1080) > 640, large not ready"
    assert not decision.degraded
    assert [passed.branch for passed in decision.passed_over] == ["yolo11x_960"]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (Readiness.MISSING, "model_not_found"),
        (Readiness.WEIGHTS_MISSING, "weights_missing"),
        (Readiness.LOADING, "model_not_ready"),
        (Readiness.UNAVAILABLE, "model_not_ready"),
        (Readiness.CONTRACT_MISMATCH, "model_not_ready"),
        (Readiness.OUT_OF_MEMORY, "insufficient_gpu_memory"),
        (Readiness.UNREACHABLE, "triton_unavailable"),
        (Readiness.SEVERAL_SERVERS, "several_servers"),
    ],
)
def test_a_branch_that_cannot_serve_fails_fast_unless_a_fallback_is_allowed(
    state: Readiness, code: str
) -> None:
    """Without leave the state's own code; with it the next smaller ready branch, degraded, both named."""
    ready = {**ALL_READY, "midas_512": state}
    with pytest.raises(RoutingError) as failure:
        route(CATALOGUE["depth"], FrameFacts(1920, 1080), Wishes(), ready)
    assert failure.value.code == code
    decision = route(CATALOGUE["depth"], FrameFacts(1920, 1080), Wishes(fallback=True), ready)
    assert decision.branch.name == "midas_384"
    assert decision.degraded
    assert "midas_512" in decision.why
    assert [passed.branch for passed in decision.passed_over] == ["midas_512"]


def test_a_fallback_never_goes_up() -> None:
    """The smallest branch has no fallback."""
    ready = {**ALL_READY, "midas_256": Readiness.UNAVAILABLE}
    with pytest.raises(RoutingError):
        route(CATALOGUE["depth"], FrameFacts(100, 100), Wishes(fallback=True), ready)


@pytest.mark.parametrize(
    ("wish", "branch"),
    [
        (Wishes(branch="yolo11s_960"), "yolo11s_960"),
        (Wishes(tier="small"), "yolo11x_320"),
        (Wishes(size=960), "yolo11x_960"),
        (Wishes(size=960, variant="m"), "yolo11m_960"),
        (Wishes(variant="l"), "yolo11l_640"),
        (Wishes(branch="yolo11n_320", tier="small", size=320), "yolo11n_320"),
    ],
)
def test_overrides_choose_the_branch(wish: Wishes, branch: str) -> None:
    """A branch can be named, or chosen by tier, size and variant."""
    assert route(CATALOGUE["detect"], FrameFacts(500, 500), wish, ALL_READY).branch.name == branch


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        (Wishes(branch="yolo12n_640"), "model_not_found"),
        (Wishes(branch="yolo11n_640", size=320), "invalid_parameter"),
        (Wishes(branch="yolo11n_640", variant="x"), "invalid_parameter"),
        (Wishes(size=500), "invalid_parameter"),
        (Wishes(tier="huge"), "invalid_parameter"),
        (Wishes(variant="q"), "invalid_parameter"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(wish: Wishes, code: str) -> None:
    """Unknown names and contradictions are errors of the caller, never silently dropped."""
    with pytest.raises(RoutingError) as failure:
        route(CATALOGUE["detect"], FrameFacts(500, 500), wish, ALL_READY)
    assert failure.value.code == code


def test_the_default_variant_is_the_setting_s() -> None:
    """The variant used when the caller names none comes from outside; the catalogue's is x."""
    assert route(CATALOGUE["detect"], FrameFacts(500, 500), Wishes(), ALL_READY).branch.variant == "x"
    decision = route(CATALOGUE["detect"], FrameFacts(500, 500), Wishes(), ALL_READY, "n")
    assert decision.branch.name == "yolo11n_640"


@pytest.mark.parametrize("default", [None, *"nsmlx"])
@pytest.mark.parametrize(
    ("wish", "branch"),
    [
        (Wishes(), "raft_512"),
        (Wishes(variant="small"), "raft_512"),
        (Wishes(variant="large"), "raft_large_512"),
        (Wishes(variant="large", size=256), "raft_large_256"),
        (Wishes(variant="large", tier="medium"), "raft_large_384"),
        (Wishes(branch="raft_large_384"), "raft_large_384"),
        (Wishes(branch="raft_384"), "raft_384"),
    ],
)
def test_flow_knows_nothing_of_detection_s_variant(wish: Wishes, branch: str, default: str | None) -> None:
    """Whatever variant detection is set to, flow is small unless large is asked for, by variant or by name."""
    assert route(CATALOGUE["flow"], FrameFacts(500, 500), wish, ALL_READY, default).branch.name == branch


@pytest.mark.parametrize(
    ("family", "variant"), [("flow", "n"), ("detect", "large"), ("detect", "small"), ("depth", "large")]
)
def test_a_variant_of_another_family_is_refused(family: str, variant: str) -> None:
    """Asked for by name, a variant that the family hasn't got is an error that lists those it has."""
    with pytest.raises(RoutingError, match=f"{family} has no variant '{variant}'; it has") as failure:
        route(CATALOGUE[family], FrameFacts(500, 500), Wishes(variant=variant), ALL_READY)
    assert failure.value.code == "invalid_parameter"


def test_large_flow_falls_back_on_large_flow() -> None:
    """A fallback is a smaller size of the same network, and a size that isn't there is passed over by the rule."""
    ready = {**ALL_READY, "raft_large_512": Readiness.MISSING, "raft_large_384": Readiness.OUT_OF_MEMORY}
    decision = route(CATALOGUE["flow"], FrameFacts(500, 500), Wishes(variant="large"), ready)
    assert (decision.branch.name, decision.kind) == ("raft_large_256", "rule")
    ready["raft_large_256"] = Readiness.MISSING
    with pytest.raises(RoutingError, match="raft_large_256: not in the repository"):
        route(CATALOGUE["flow"], FrameFacts(500, 500), Wishes(variant="large", fallback=True), ready)


def test_a_short_side_under_320_is_warned_of_in_the_contract_s_words() -> None:
    """Small frames are served with a warning, not scaled up."""
    decision = route(CATALOGUE["detect"], FrameFacts(640, 200), Wishes(), ALL_READY)
    assert decision.warnings == ("shorter side 200 px is under the 320 px that this family wants",)
    assert route(CATALOGUE["detect"], FrameFacts(640, 320), Wishes(), ALL_READY).warnings == ()


@pytest.mark.parametrize(
    "frame",
    [
        FrameFacts(0, 100),
        FrameFacts(100, -1),
        FrameFacts(0, 0, analysis_height=5),
        FrameFacts(0, 0, analysis_width=5),
        FrameFacts(100, 100, 0, 100),
        FrameFacts(100, 100, analysis_height=-3),
    ],
)
def test_a_frame_without_an_area_is_refused(frame: FrameFacts) -> None:
    """Zero and negative sides are an error of the caller, never a division by zero or a guess."""
    with pytest.raises(RoutingError) as failure:
        route(CATALOGUE["detect"], frame, Wishes(), ALL_READY)
    assert failure.value.code == "invalid_parameter"


def test_an_unknown_branch_is_answered_with_the_names_that_are_served() -> None:
    """The names offered are of the variant that the service uses, not of the catalogue's default."""
    with pytest.raises(
        RoutingError, match=r"it has yolo11n_320, yolo11n_320_uint8, yolo11n_640, .*n_960_uint8$"
    ):
        route(CATALOGUE["detect"], FrameFacts(500, 500), Wishes(branch="yolo12n_640"), ALL_READY, "n")


def test_a_fallback_names_every_branch_that_was_passed_over() -> None:
    """Branches that the rule passed over, the intended one, and unsuitable ones all stand in order."""
    ready = {
        **ALL_READY,
        "yolo11x_960": Readiness.OUT_OF_MEMORY,
        "yolo11x_640": Readiness.OUT_OF_MEMORY,
    }
    decision = route(CATALOGUE["detect"], FrameFacts(1920, 1080), Wishes(fallback=True), ready)
    assert decision.branch.name == "yolo11x_320"
    assert [(passed.branch, passed.reason) for passed in decision.passed_over] == [
        ("yolo11x_960", "out of memory"),
        ("yolo11x_640", "out of memory"),
    ]
    assert "yolo11x_640 out of memory" in decision.why


def test_a_branch_that_fails_while_it_runs_is_followed_by_the_next_smaller_one() -> None:
    """READY or not, it counts as out of memory; the answer is degraded and says what was meant, step by step."""
    family, facts, wishes = CATALOGUE["detect"], FrameFacts(200, 1920), Wishes(fallback=True)
    first = route(family, facts, wishes, ALL_READY)
    second = instead(family, first, wishes, ALL_READY)
    third = instead(family, second, wishes, ALL_READY)
    assert [d.branch.name for d in (first, second, third)] == ["yolo11x_960", "yolo11x_640", "yolo11x_320"]
    assert [d.degraded for d in (first, second, third)] == [False, True, True]
    assert [(p.branch, p.reason) for p in third.passed_over] == [
        ("yolo11x_960", "out of memory"),
        ("yolo11x_640", "out of memory"),
    ]
    assert third.why == (
        "fallback: yolo11x_640 out of memory (fallback: yolo11x_960 out of memory (rule: max(200, 1920) > 640))"
    )
    assert first.warnings == second.warnings == third.warnings != ()


def test_nothing_follows_the_smallest_branch_or_where_no_fallback_is_allowed() -> None:
    """Then it is insufficient_gpu_memory, whatever else is ready."""
    family, facts = CATALOGUE["detect"], FrameFacts(1920, 1080)
    for wishes in (Wishes(), Wishes(fallback=True, size=320)):
        decided = route(family, facts, wishes, ALL_READY)
        with pytest.raises(RoutingError) as failure:
            instead(family, decided, wishes, ALL_READY)
        assert (failure.value.code, failure.value.branch) == ("insufficient_gpu_memory", decided.branch.name)


BYTES = "tensors go as bytes"


def test_a_twin_serves_where_tensors_are_dear() -> None:
    """Decided as ever, then its twin if that is ready, and the reason says so; not for a caller who names a branch."""
    family, facts = CATALOGUE["detect"], FrameFacts(500, 500)
    decision = route(family, facts, Wishes(), ALL_READY, "n", BYTES)
    assert decision.branch.name == "yolo11n_640_uint8"
    assert decision.why == f"rule: 320 < max(500, 500) <= 640, frame as UINT8: {BYTES}"
    assert (decision.kind, decision.degraded) == ("rule", False)
    assert route(family, facts, Wishes(), ALL_READY, "n").branch.name == "yolo11n_640"
    assert route(family, facts, Wishes(size=320), ALL_READY, "n", BYTES).branch.name == "yolo11n_320_uint8"
    named = route(family, facts, Wishes(branch="yolo11n_640"), ALL_READY, "n", BYTES)
    assert (named.branch.name, named.why) == ("yolo11n_640", "override: branch=yolo11n_640")
    twin = route(family, facts, Wishes(branch="yolo11s_640_uint8"), ALL_READY, "n")
    assert (twin.branch.name, twin.why) == ("yolo11s_640_uint8", "override: branch=yolo11s_640_uint8")


@pytest.mark.parametrize("state", [None, *(state for state in Readiness if state is not Readiness.READY)])
def test_without_its_twin_the_branch_serves(state: Readiness | None) -> None:
    """Quietly: the answer is the same. And a twin whose branch isn't ready serves nobody who didn't name it."""
    family, facts = CATALOGUE["detect"], FrameFacts(500, 500)
    ready = {name: value for name, value in ALL_READY.items() if name != "yolo11x_640_uint8"}
    if state is not None:
        ready["yolo11x_640_uint8"] = state
    assert route(family, facts, Wishes(), ready, None, BYTES) == route(family, facts, Wishes(), ready)
    if state is not None:
        with pytest.raises(RoutingError):
            route(family, facts, Wishes(), {**ALL_READY, "yolo11x_640": state}, None, BYTES)


def test_after_a_twin_comes_the_next_smaller_one() -> None:
    """Out of memory is out of memory for its branch, too; a smaller twin goes before its branch."""
    family, facts, wishes = CATALOGUE["detect"], FrameFacts(1000, 1000), Wishes(fallback=True)
    first = route(family, facts, wishes, ALL_READY, "n", BYTES)
    second = instead(family, first, wishes, {**ALL_READY, "yolo11n_640_uint8": Readiness.MISSING})
    third = instead(family, second, wishes, ALL_READY)
    assert [d.branch.name for d in (first, second, third)] == [
        "yolo11n_960_uint8",
        "yolo11n_640",
        "yolo11n_320",
    ]
    assert [(p.branch, p.reason) for p in second.passed_over] == [
        ("yolo11n_960_uint8", "out of memory"),
        ("yolo11n_960", "out of memory"),
        ("yolo11n_640_uint8", "not in the repository"),
    ]
    again = instead(family, first, wishes, ALL_READY)
    assert again.branch.name == "yolo11n_640_uint8"


def test_a_twin_by_name_that_is_not_ready_may_fall_back_on_its_branch() -> None:
    """The same weights at the same size come first; without leave it is the twin's own error."""
    family, ready = CATALOGUE["detect"], {**ALL_READY, "yolo11n_640_uint8": Readiness.WEIGHTS_MISSING}
    wishes = Wishes(branch="yolo11n_640_uint8")
    with pytest.raises(RoutingError) as failure:
        route(family, FrameFacts(500, 500), wishes, ready)
    assert (failure.value.code, failure.value.branch) == ("weights_missing", "yolo11n_640_uint8")
    decision = route(family, FrameFacts(500, 500), Wishes(branch=wishes.branch, fallback=True), ready)
    assert (decision.branch.name, decision.degraded) == ("yolo11n_640", True)
