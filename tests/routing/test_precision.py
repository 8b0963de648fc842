"""FP16 branches stand beside FP32 ones, and routing takes those of the preferred precision."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import overlay
from routing.catalogue import Catalogue, CatalogueError, Precision
from routing.policy import FrameFacts, Readiness, RoutingError, Wishes, route
from routing.reachable import Service, of_service, reachable

SOME = '[precision]\nfp16 = ["yolo11n_*", "midas_384", "clip_text"]\n'
EVERY = '[precision]\nfp16 = ["*"]\n'


def _load(tmp_path: Path, text: str, precision: Precision = "fp32") -> Catalogue:
    file = tmp_path / "own.toml"
    file.write_text(text)
    return overlay.load(file, precision=precision)


def _fault(tmp_path: Path, text: str, precision: Precision = "fp32") -> str:
    with pytest.raises(CatalogueError) as caught:
        _load(tmp_path, text, precision)
    return str(caught.value)


def test_a_pattern_adds_a_branch_beside_each_that_it_names(tmp_path: Path) -> None:
    """Its tensors and preprocess graph are those of the FP32 branch; its weights are another model."""
    catalogue, ours = _load(tmp_path, SOME), overlay.load(None)
    added = sorted(set(catalogue.branches) - set(ours.branches))
    assert added == [
        "clip_text_fp16", "midas_384_fp16", "yolo11n_320_fp16", "yolo11n_320_fp16_uint8", "yolo11n_640_fp16",
        "yolo11n_640_fp16_uint8", "yolo11n_960_fp16", "yolo11n_960_fp16_uint8",
    ]  # fmt: skip
    half, single = catalogue.branches["midas_384_fp16"], ours.branches["midas_384"]
    assert (half.inputs, half.outputs, half.tier, half.size) == (
        single.inputs, single.outputs, single.tier, single.size,
    )  # fmt: skip
    names = [model.name for model in half.models]
    assert names == ["midas_384_fp16", "preprocess_midas_384", "midas_384_fp16_onnx"]
    assert (half.precision, half.alternate_of, half.required) == ("fp16", "midas_384", False)
    twin = catalogue.branches["yolo11n_640_fp16_uint8"]
    assert (twin.twin_of, twin.weights_model, twin.precision) == (
        "yolo11n_640_fp16",
        "yolo11n_640_fp16",
        "fp16",
    )
    assert twin.preprocess_model == "preprocess_yolo11_640"


def test_fp32_stays_the_rule_and_fp16_serves_by_name(tmp_path: Path) -> None:
    """The ladders, the READY checklist and what is loaded are as they were."""
    catalogue, ours = _load(tmp_path, EVERY), overlay.load(None)
    for name, family in ours.families.items():
        assert [branch.name for branch in catalogue[name].branches] == [b.name for b in family.branches]
    assert catalogue.checklist("x") == ours.checklist("x")
    assert [b.name for b in of_service(catalogue, Service())] == [b.name for b in of_service(ours, Service())]
    ready = dict.fromkeys(catalogue.branches, Readiness.READY)
    decision = route(catalogue["detect"], FrameFacts(640, 480), Wishes(branch="yolo11n_640_fp16"), ready)
    assert (decision.branch.name, decision.kind) == ("yolo11n_640_fp16", "override")


def test_fp16_is_preferred_where_it_exists(tmp_path: Path) -> None:
    """Rule, checklist and twins are those of FP16; branches without it serve in FP32; FP32 serves by name."""
    catalogue, ours = _load(tmp_path, SOME, "fp16"), overlay.load(None)
    ready = dict.fromkeys(catalogue.branches, Readiness.READY)

    def chosen(family: str, side: int, wishes: Wishes, compact: str = "") -> str:
        return route(catalogue[family], FrameFacts(side, side), wishes, ready, "n", compact).branch.name

    assert chosen("detect", 600, Wishes()) == "yolo11n_640_fp16"
    assert chosen("detect", 600, Wishes(), "tensors go as bytes") == "yolo11n_640_fp16_uint8"
    assert chosen("detect", 600, Wishes(branch="yolo11n_640")) == "yolo11n_640"
    assert chosen("detect", 600, Wishes(tier="large")) == "yolo11n_960_fp16"
    assert chosen("detect", 600, Wishes(variant="x")) == "yolo11x_640"
    assert chosen("depth", 400, Wishes()) == "midas_384_fp16"
    assert chosen("depth", 900, Wishes()) == "midas_512"
    checklist = catalogue.checklist("n")
    assert checklist["midas_384_fp16_onnx"] == checklist["midas_512"] == "required"
    assert "midas_384" not in checklist
    for family in catalogue.families.values():
        assert [(b.tier, b.max_side, b.when_ready, b.required) for b in family.branches] == [
            (b.tier, b.max_side, b.when_ready, b.required) for b in ours[family.name].branches
        ]


def test_a_named_branch_falls_back_in_its_own_precision(tmp_path: Path) -> None:
    """A smaller FP16 branch stands in for an FP16 one, and a smaller FP32 branch for an FP32 one."""
    for precision in ("fp32", "fp16"):
        catalogue = _load(tmp_path, EVERY, precision)
        for name, instead in (("yolo11n_960_fp16", "yolo11n_640_fp16"), ("yolo11n_960", "yolo11n_640")):
            ready = dict.fromkeys(catalogue.branches, Readiness.READY) | {name: Readiness.OUT_OF_MEMORY}
            decision = route(catalogue["detect"], None, Wishes(branch=name, fallback=True), ready)
            assert (decision.branch.name, decision.kind) == (instead, "fallback")


_NAMES = sorted(overlay.load(None).branches)


@given(
    precision=st.sampled_from(["fp32", "fp16"]),
    name=st.sampled_from([*_NAMES, *(f"{name}_fp16" for name in _NAMES)]),
    away=st.sets(st.sampled_from([*_NAMES, *(f"{name}_fp16" for name in _NAMES)])),
    fallback=st.booleans(),
    compact=st.booleans(),
)
def test_what_a_name_chooses_is_reachable(
    tmp_path_factory: pytest.TempPathFactory,
    precision: Precision,
    name: str,
    away: set[str],
    fallback: bool,
    compact: bool,
) -> None:
    """Routing never takes a branch that nobody would have loaded for the same wishes."""
    catalogue = _catalogue(tmp_path_factory, precision)
    branch = catalogue.branches.get(name)
    if branch is None:
        return
    ready = {other: Readiness.READY for other in catalogue.branches if other not in away}
    wishes = Wishes(branch=name, fallback=fallback)
    family = catalogue[branch.family]
    found = {b.name for b in reachable(family, wishes, compact=compact)}
    try:
        decision = route(family, None, wishes, ready, compact="so" if compact else "")
    except RoutingError:
        return
    assert decision.branch.name in found


_LOADED: dict[str, Catalogue] = {}


def _catalogue(factory: pytest.TempPathFactory, precision: Precision) -> Catalogue:
    if precision not in _LOADED:
        _LOADED[precision] = _load(factory.mktemp(precision), EVERY, precision)
    return _LOADED[precision]


def test_a_branch_that_is_left_out_takes_its_fp16_one_along(tmp_path: Path) -> None:
    """And the ladder that is left serves every frame in both precisions."""
    text = EVERY + '[leave_out]\nbranches = ["*_960"]\n'
    for precision in ("fp32", "fp16"):
        catalogue = _load(tmp_path, text, precision)
        assert not any("_960" in name for name in catalogue.branches)
        assert catalogue["detect"].branches[-1].max_side is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[precision]\nfp16 = ["yolo12"]\n', "own.toml:2: fp16: no branch that is built here is called 'yolo12'"),
        ("[precision]\nfp16 = [7]\n", "own.toml:2: fp16: no branch that is built here is called '7'"),
        ('[precision]\nfp16 = "yolo11n_640"\n', "own.toml:2: precision (?): fp16 is no list"),
        ('[precision]\nint8 = ["yolo11n_640"]\n', "own.toml:2: precision (?): unknown key int8"),
        ("precision = 16\n", "own.toml:1: this catalogue (?): precision is no dict"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_line(tmp_path: Path, text: str, fault: str) -> None:
    """As for the other tables."""
    assert fault in _fault(tmp_path, text)


def test_fp16_without_an_fp16_branch_is_refused(tmp_path: Path) -> None:
    """The message says what builds some."""
    assert "`make models PRECISION=fp16` or `gateway up` builds some" in _fault(tmp_path, "", "fp16")


def test_other_programs_models_have_one_precision(tmp_path: Path) -> None:
    """A pattern passes over a model that is described as it is; its name alone is a fault."""
    own = (
        '[[variant]]\nfamily = "depth"\nname = "theirs"\nlayout = "FP32 NCHW"\n'
        '[[variant.branch]]\nname = "their_depth"\nsize = 384\n'
    )
    assert "their_depth_fp16" not in _load(tmp_path, own + EVERY).branches
    assert "no branch that is built here" in _fault(tmp_path, own + '[precision]\nfp16 = ["their_depth"]\n')
