"""The catalogue holds the contract, and refuses to hold nonsense."""

from __future__ import annotations

import copy
import dataclasses
import random
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing import catalogue as catalogues
from routing.catalogue import CATALOGUE_PATH, Catalogue, CatalogueError, TensorSpec, parse

CATALOGUE = catalogues.load()
DOCUMENT = tomllib.loads(CATALOGUE_PATH.read_text(encoding="utf-8"))


def _u8(side: int, name: str = "INPUT__0") -> TensorSpec:
    return TensorSpec(name, "UINT8", (1, side, side, 3))


def _fp32(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, "FP32", shape)


CONTRACTS: dict[str, tuple[list[TensorSpec], list[TensorSpec]]] = {
    **{f"midas_{s}": ([_u8(s)], [_fp32("OUTPUT__0", 1, s, s)]) for s in (256, 384, 512)},
    **{
        f"raft_{v}{s}": ([_u8(s, "INPUT0__0"), _u8(s, "INPUT1__0")], [_fp32("OUTPUT__0", 1, 2, s, s)])
        for v in ("", "large_")
        for s in (256, 384, 512)
    },
    **{
        f"yolo11{v}_{s}": ([_fp32("images", 1, 3, s, s)], [_fp32("output0", 1, 84, n)])
        for v in "nsmlx"
        for s, n in ((320, 2100), (640, 8400), (960, 18900))
    },
    **{
        f"yolo11{v}_{s}_uint8": ([_u8(s)], [_fp32("output0", 1, 84, n)])
        for v in "nsmlx"
        for s, n in ((320, 2100), (640, 8400), (960, 18900))
    },
    **{f"clip_image_{s}": ([_u8(s)], [_fp32("OUTPUT__0", 1, 512)]) for s in (224, 336, 448)},
    "clip_text": ([TensorSpec("INPUT__0", "INT64", (1, 77))], [_fp32("OUTPUT__0", 1, 77, 512)]),
    **{f"places365_resnet50_{s}": ([_u8(s)], [_fp32("OUTPUT__0", 1, 365)]) for s in (224, 336, 448)},
}
REQUIRED = [
    "midas_256",
    "midas_384",
    "midas_512",
    "midas_256_onnx",
    "midas_384_onnx",
    "midas_512_onnx",
    "preprocess_midas_256",
    "preprocess_midas_384",
    "preprocess_midas_512",
    "raft_256",
    "raft_256_onnx",
    "preprocess_raft_256",
    "clip_image_224",
    "clip_image_224_onnx",
    "preprocess_clip_image_224",
    "clip_text",
    "clip_text_onnx",
    "places365_resnet50_224",
    "places365_resnet50_224_onnx",
    "preprocess_places365_224",
]
OPTIONAL = [
    "yolo11x_320",
    "yolo11x_640",
    "yolo11x_960",
    "raft_384",
    "raft_512",
    "raft_384_onnx",
    "raft_512_onnx",
    "preprocess_raft_384",
    "preprocess_raft_512",
    "places365_resnet50_336",
    "places365_resnet50_448",
    "places365_resnet50_336_onnx",
    "places365_resnet50_448_onnx",
    "preprocess_places365_336",
    "preprocess_places365_448",
]


def test_every_branch_keeps_the_contract() -> None:
    """Names, datatypes and fixed shapes of all branches are those of the requirements."""
    actual = {b.name: (list(b.inputs), list(b.outputs)) for b in CATALOGUE.branches.values()}
    assert actual == CONTRACTS


def test_components_are_those_of_the_requirements() -> None:
    """Each family feeds the component that downstream code knows."""
    assert {family.name: family.component for family in CATALOGUE.families.values()} == {
        "detect": "core_object_detections",
        "depth": "core_depth_midas",
        "flow": "core_optical_flow",
        "clip_image": "core_clip",
        "clip_text": "core_clip",
        "places": "places365",
    }


def test_the_ready_checklist_is_that_of_the_requirements() -> None:
    """Required and optional models, by name; CLIP's larger sizes are optional beyond the list."""
    assert CATALOGUE.ready_checklist(required=True, variant="x") == tuple(sorted(REQUIRED))
    clip = {
        f"{p}clip_image_{s}{q}" for s in (336, 448) for p, q in (("", ""), ("", "_onnx"), ("preprocess_", ""))
    }
    assert set(CATALOGUE.ready_checklist(required=False, variant="x")) == {*OPTIONAL, *clip}


@pytest.mark.parametrize("variant", [*"nsmlx", "large"])
def test_the_checklist_follows_the_variant_where_a_family_has_it(variant: str) -> None:
    """The checklist has one variant of detection; flow stays the small one whatever detection is set to."""
    listed = {
        name
        for required in (True, False)
        for name in CATALOGUE.ready_checklist(required=required, variant=variant)
    }
    detect = variant if variant in "nsmlx" else "x"
    assert {name for name in listed if "yolo" in name} == {f"yolo11{detect}_{s}" for s in (320, 640, 960)}
    flow = "raft_large_" if variant == "large" else "raft_"
    assert {f"{flow}{size}" for size in (256, 384, 512)} < listed
    assert any("raft_large" in name for name in listed) is (variant == "large")


def test_flow_has_two_networks_and_small_is_the_default() -> None:
    """Large has names of its own and is never required; a name says which it is."""
    flow = CATALOGUE["flow"]
    assert (flow.variants, flow.default_variant) == (("small", "large"), "small")
    assert [branch.name for branch in flow.of_variant("small")] == ["raft_256", "raft_384", "raft_512"]
    assert [branch.name for branch in flow.of_variant("large")] == [
        "raft_large_256",
        "raft_large_384",
        "raft_large_512",
    ]
    assert not any(branch.required for branch in flow.of_variant("large"))


@pytest.mark.parametrize("variant", "nsmlx")
@pytest.mark.parametrize("size", [320, 640, 960])
def test_a_detector_has_a_twin_with_the_same_weights(variant: str, size: int) -> None:
    """Pixels through a graph that all variants share into the very model; it stands on no ladder and no checklist."""
    name = f"yolo11{variant}_{size}"
    branch, twin = CATALOGUE.branches[name], CATALOGUE.branches[f"{name}_uint8"]
    assert branch.compact is twin
    assert [model.name for model in twin.models] == [twin.name, f"preprocess_yolo11_{size}", name]
    assert twin.models[-1] is branch.models[-1] is CATALOGUE.models[twin.weights_model]
    assert twin.models[1].outputs[0].shape == branch.inputs[0].shape
    assert (branch.same_weights, branch.twin_of) == ((name, twin.name), None)
    assert (twin.same_weights, twin.twin_of) == ((name, twin.name), name)
    family = CATALOGUE["detect"]
    assert family.branch(twin.name) is twin
    assert twin not in family.branches
    assert twin not in family.of_variant(variant)
    assert not twin.required


def test_only_detection_has_twins() -> None:
    """The other families' branches take pixels already, or tokens; each is alone with its weights."""
    others = [b for b in CATALOGUE.branches.values() if b.family != "detect"]
    assert all(b.compact is None and b.twin_of is None and b.same_weights == (b.name,) for b in others)


def test_no_tensor_has_a_dynamic_axis() -> None:
    """Every dimension of every model in the repository is a positive number."""
    for model in CATALOGUE.models.values():
        for tensor in (*model.inputs, *model.outputs):
            assert all(isinstance(d, int) and d > 0 for d in tensor.shape), (model.name, tensor)


def test_the_catalogue_is_frozen() -> None:
    """Nobody changes a branch at run time."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        CATALOGUE.branches["midas_256"].size = 1  # type: ignore[misc]  # that it can't be assigned is the test
    with pytest.raises(TypeError):
        CATALOGUE.families["other"] = CATALOGUE["depth"]  # type: ignore[index]  # ditto
    with pytest.raises(TypeError):
        CATALOGUE.branches["midas_1024"] = CATALOGUE.branches["midas_512"]  # type: ignore[index]  # ditto
    with pytest.raises(TypeError):
        del CATALOGUE.models["midas_512"]  # type: ignore[attr-defined]  # ditto


def test_clip_336_sees_every_pixel() -> None:
    """336 is no multiple of the 32-pixel patch, so the preprocess graph hands the model 320."""
    branch = CATALOGUE.branches["clip_image_336"]
    assert branch.models[1].outputs[0].shape == (1, 3, 320, 320)


def _depth(document: dict[str, Any]) -> dict[str, Any]:
    family: dict[str, Any] = next(f for f in document["family"] if f["name"] == "depth")
    return family


def _flow(document: dict[str, Any]) -> dict[str, Any]:
    family: dict[str, Any] = next(f for f in document["family"] if f["name"] == "flow")
    return family


def _set(table: Any, key: str | int, value: object) -> None:
    table[key] = value


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "version": (lambda d: _set(d, "schema_version", 2), "schema_version"),
    "unknown key": (lambda d: _set(d, "familly", []), "familly"),
    "unknown family key": (lambda d: _set(_depth(d), "colour", 1), "colour"),
    "unknown branch key": (lambda d: _set(_depth(d)["branch"][0], "colour", 1), "colour"),
    "missing title": (lambda d: _depth(d).pop("title"), "title"),
    "family twice": (lambda d: d["family"].append(copy.deepcopy(_depth(d))), "depth"),
    "branch twice": (lambda d: _set(_depth(d)["branch"][1], "name", "midas_256"), "midas_256"),
    "falling sizes": (lambda d: _set(_depth(d)["branch"][1], "size", 128), "sizes"),
    "falling thresholds": (lambda d: _set(_depth(d)["branch"][1], "max_side", 100), "thresholds"),
    "missing threshold": (lambda d: _depth(d)["branch"][0].pop("max_side"), "thresholds"),
    "bounded last": (lambda d: _set(_depth(d)["branch"][2], "max_side", 4096), "larger"),
    "falling tiers": (lambda d: _set(_depth(d)["branch"][1], "tier", "small"), "tiers"),
    "dynamic axis": (lambda d: _set(_depth(d)["input"][0], "shape", [1, -1, -1, 3]), "dynamic"),
    "datatype": (lambda d: _set(_depth(d)["input"][0], "datatype", "FP64"), "FP64"),
    "symbol": (lambda d: _set(_depth(d)["input"][0], "shape", [1, "Q", "S", 3]), "Q"),
    "no branches": (lambda d: _set(_depth(d), "branch", []), "branches"),
    "default variant": (lambda d: _set(_depth(d), "default_variant", "z"), "default_variant"),
    "smallest when_ready": (lambda d: _set(_depth(d)["branch"][0], "when_ready", True), "when_ready"),
    "no family": (lambda d: _set(d, "family", []), "no family"),
    "a family that is no table": (lambda d: d["family"].append("depth"), "no table"),
    "unknown tensor key": (lambda d: _set(_depth(d)["input"][0], "dims", [1]), "dims"),
    "unknown prepare key": (lambda d: _set(_depth(d)["prepare"], "gamma", 2.2), "gamma"),
    "unknown fit": (lambda d: _set(_depth(d)["prepare"], "fit", "squash"), "squash"),
    "two channels": (lambda d: _set(_depth(d)["prepare"], "mean", [0.5, 0.5]), "channel"),
    "unknown tier": (lambda d: _set(_depth(d)["branch"][1], "tier", "huge"), "huge"),
    "missing tier": (lambda d: _depth(d)["branch"][1].pop("tier"), "tiers"),
    "missing size": (lambda d: _depth(d)["branch"][1].pop("size"), "S"),
    "missing required": (lambda d: _depth(d)["branch"][1].pop("required"), "required"),
    "size in words": (lambda d: _set(_depth(d)["branch"][1], "size", "384"), "size is no int"),
    "required in words": (lambda d: _set(_depth(d)["branch"][1], "required", "yes"), "required is no bool"),
    "threshold zero": (lambda d: _set(_depth(d)["branch"][1], "max_side", 0), "positive"),
    "negative size": (lambda d: _set(_depth(d)["branch"][0], "size", -256), "positive"),
    "no anchors": (lambda d: _set(d["family"][0]["branch"][0], "size", 330), "'A'"),
    "variants without default": (lambda d: d["family"][0].pop("default_variant"), "default_variant"),
    "row of no variant": (
        lambda d: _set(_flow(d)["branch"][0], "variant", "huge"),
        "raft_256 is of a variant",
    ),
    "row of a variant without any": (
        lambda d: _set(_depth(d)["branch"][0], "variant", "a"),
        "midas_256 is of a",
    ),
    "row of all variants": (lambda d: _flow(d)["branch"][0].pop("variant"), "sizes must rise"),
    "variant without rows": (lambda d: _set(_flow(d), "variants", ["small", "large", "huge"]), "no branches"),
    "variant of two families": (
        lambda d: (
            _set(_flow(d), "variants", ["n", "large"]),
            _set(_flow(d), "default_variant", "large"),
            [_set(row, "variant", "n") for row in _flow(d)["branch"][:3]],
        ),
        "variant n stands twice",
    ),
    "labels that are not there": (lambda d: _set(d["family"][0], "labels", "none.txt"), "none.txt"),
    "twin without its branch's name": (
        lambda d: _set(d["family"][0]["compact"], "name", "twin"),
        "twin stands",
    ),
    "twin with its branch's name": (
        lambda d: _set(d["family"][0]["compact"], "name", "{branch}"),
        "stands twice",
    ),
    "one graph for all sizes": (
        lambda d: _set(d["family"][0]["compact"], "preprocess", "preprocess_yolo11"),
        "preprocess_yolo11 stands twice",
    ),
    "a graph of another family": (
        lambda d: (
            _set(d["family"][0]["compact"], "preprocess", "preprocess_midas_{size}"),
            _set(_depth(d)["branch"][0], "preprocess", "preprocess_midas_320"),
        ),
        "preprocess_midas_320 stands twice",
    ),
    "twin of an ensemble": (
        lambda d: _set(_depth(d), "compact", copy.deepcopy(d["family"][0]["compact"])),
        "prepared FP32",
    ),
    "twin with two inputs": (
        lambda d: d["family"][0]["compact"]["input"].append({"name": "b", "datatype": "UINT8", "shape": [1]}),
        "as many inputs",
    ),
    "unknown twin key": (lambda d: _set(d["family"][0]["compact"], "size", 1), "size"),
    "a variant that is no name": (
        lambda d: _set(next(f for f in d["family"] if f["name"] == "detect")["variants"], 0, []),
        "variants are a list of names",
    ),
    "preprocess twice": (
        lambda d: _set(_depth(d)["branch"][1], "preprocess", "preprocess_midas_256"),
        "preprocess_midas_256 stands twice",
    ),
}


def _parse(document: dict[str, Any]) -> Catalogue:
    return parse(document, CATALOGUE_PATH.parent / "labels")


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_catalogue_is_refused_with_the_fault_named(name: str) -> None:
    """Whatever contradicts itself ends at load, not at the first request."""
    damage, words = FAULTS[name]
    document = copy.deepcopy(DOCUMENT)
    _parse(document)
    damage(document)
    with pytest.raises(CatalogueError, match=words):
        _parse(document)


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from _places(node[key])


JUNK = st.sampled_from([None, "", "{", "{variant}", "S", 0, -1, 3.5, True, [], [1], ["A"], {}, {"name": 1}])


@settings(max_examples=600)
@given(st.randoms(use_true_random=False), JUNK, st.booleans())
def test_whatever_stands_in_a_place_is_a_catalogue_or_a_catalogue_error(
    chance: random.Random, junk: object, remove: bool
) -> None:
    """Any value of the document replaced or removed: no other exception, and never a dynamic axis."""
    document = copy.deepcopy(DOCUMENT)
    container, key = chance.choice(list(_places(document)))
    if remove:
        del container[key]
    else:
        container[key] = copy.deepcopy(junk)
    try:
        catalogue = _parse(document)
    except CatalogueError as error:
        assert str(error)  # noqa: PT017  # either outcome is right
        return
    for model in catalogue.models.values():
        for tensor in (*model.inputs, *model.outputs):
            assert all(type(side) in (int, bool) and side > 0 for side in tensor.shape), tensor


@pytest.mark.parametrize("text", ["schema_version = ", "\xff", None], ids=["half", "not UTF-8", "absent"])
def test_a_file_that_is_no_catalogue_is_refused_by_its_name(tmp_path: Path, text: str | None) -> None:
    """Broken TOML, broken encoding and a missing file end as CatalogueError with the path in it."""
    path = tmp_path / "branches.toml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CatalogueError, match=r"branches\.toml"):
        catalogues.load(path)
