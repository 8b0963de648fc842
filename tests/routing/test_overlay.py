"""A catalogue of one's own: what it adds, changes and leaves out, and every fault with its file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from routing import overlay
from routing.catalogue import Catalogue, CatalogueError, TensorSpec
from routing.policy import FrameFacts, Readiness, RoutingError, Wishes, route
from routing.reachable import Service, of_service

HELMET = """\
[[variant]]
family = "detect"
name = "helmet"
labels = ["person", "bicycle", "car"]
[[variant.branch]]
name = "helmet_320"
size = 320
[[variant.branch]]
name = "helmet_640"
size = 640
"""


def _load(tmp_path: Path, *texts: str) -> Catalogue:
    folder = tmp_path / "catalogue"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.toml").write_text(text)
    return overlay.load(folder)


def _fault(tmp_path: Path, *texts: str) -> str:
    with pytest.raises(CatalogueError) as caught:
        _load(tmp_path, *texts)
    return str(caught.value)


def test_without_one_the_catalogue_is_ours() -> None:
    """Nothing is read, nothing is changed."""
    assert not any(branch.own for branch in overlay.load(None).branches.values())


def test_a_variant_is_added(tmp_path: Path) -> None:
    """Its output follows from its labels, tiers and thresholds from its sizes; ours stay as they are."""
    catalogue, ours = _load(tmp_path, HELMET), overlay.load(None)
    family = catalogue["detect"]
    small, medium = family.of_variant("helmet")
    assert family.variants == (*ours["detect"].variants, "helmet")
    assert family.default_variant == "x"
    assert [(b.tier, b.size, b.max_side, b.required, b.own) for b in (small, medium)] == [
        ("small", 320, 320, False, True),
        ("medium", 640, None, False, True),
    ]
    assert medium.outputs == (TensorSpec("output0", "FP32", (1, 7, 8400)),)
    assert medium.labels == ("person", "bicycle", "car")
    assert family.of_variant("n") == ours["detect"].of_variant("n")
    assert medium.compact is not None
    assert medium.compact.models[1] == ours.branches["yolo11n_640_uint8"].models[1]


def test_labels_are_a_file_beside_it(tmp_path: Path) -> None:
    """A name per line."""
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue/helmet.txt").write_text("helmet\nhead\n")
    text = HELMET.replace('["person", "bicycle", "car"]', '"helmet.txt"')
    branch = _load(tmp_path, text).branches["helmet_640"]
    assert branch.labels == ("helmet", "head")
    assert branch.models[0].classes == "labels helmet.txt names 2 classes"


@pytest.mark.parametrize(
    ("wishes", "branch"),
    [
        (Wishes(), "yolo11x_640"),
        (Wishes(variant="helmet"), "helmet_640"),
        (Wishes(variant="helmet", tier="small"), "helmet_320"),
        (Wishes(branch="helmet_320"), "helmet_320"),
        (Wishes(variant="n"), "yolo11n_640"),
    ],
)
def test_frames_are_routed_within_a_variant(tmp_path: Path, wishes: Wishes, branch: str) -> None:
    """By size, tier and name; who names no variant gets the one of before."""
    family = _load(tmp_path, HELMET)["detect"]
    ready = dict.fromkeys((b.name for b in family.branches if b.size != 960), Readiness.READY)
    assert route(family, FrameFacts(1920, 1080), wishes, ready).branch.name == branch


def test_a_branch_of_another_variant_is_refused(tmp_path: Path) -> None:
    """Wishes that contradict each other name both."""
    family = _load(tmp_path, HELMET)["detect"]
    with pytest.raises(RoutingError, match="yolo11n_640 is a branch of n, not of helmet"):
        route(family, FrameFacts(9, 9), Wishes(variant="helmet", branch="yolo11n_640"), {})


def test_a_default_is_set(tmp_path: Path) -> None:
    """It serves who names none; the setting still wins."""
    family = _load(tmp_path, HELMET, '[default]\ndetect = "helmet"\n')["detect"]
    assert family.variant_or_default(None) == "helmet"
    assert family.variant_or_default("large, n") == "n"


def test_what_is_not_wanted_is_left_out(tmp_path: Path) -> None:
    """Branches, variants, families; the ladder that is left serves every frame."""
    catalogue = _load(
        tmp_path,
        '[leave_out]\nfamilies = ["flow"]\nvariants = ["x", "s"]\nbranches = ["*_960", "midas_256"]\n',
    )
    family = catalogue["detect"]
    assert (family.variants, family.default_variant) == (("n", "m", "l"), "n")
    assert [(b.name, b.max_side) for b in family.of_variant("n")] == [
        ("yolo11n_320", 320),
        ("yolo11n_640", None),
    ]
    assert [branch.name for branch in catalogue["depth"].branches] == ["midas_384", "midas_512"]
    with pytest.raises(RoutingError, match="leaves out every branch of flow"):
        route(catalogue["flow"], FrameFacts(9, 9), Wishes(), {})
    assert not any(branch.family == "flow" for branch in of_service(catalogue, Service()))


def test_ours_is_replaced_where_that_is_said(tmp_path: Path) -> None:
    """A variant of ours goes with all its branches."""
    text = HELMET.replace('"helmet"', '"n"\nreplace = true')
    family = _load(tmp_path, text)["detect"]
    assert [branch.name for branch in family.of_variant("n")] == ["helmet_320", "helmet_640"]
    assert family.variants == ("n", "s", "m", "l", "x")


CLIP = """\
[[variant]]
family = "clip_image"
name = "vit_l_14"
dimension = 768
[[variant.branch]]
name = "vit_l_14_image_224"
size = 224
[[variant]]
family = "clip_text"
name = "vit_l_14"
dimension = 768
[[variant.branch]]
name = "vit_l_14_text"
"""


def test_a_family_without_names_has_the_standard_one_beside_an_own(tmp_path: Path) -> None:
    """Text and images of one component share the name; what was there before is called standard."""
    catalogue = _load(tmp_path, CLIP)
    image, text = catalogue["clip_image"], catalogue["clip_text"]
    assert image.variant_names == text.variant_names == ("standard", "vit_l_14")
    assert image.default_variant is None
    assert image.of_variant("vit_l_14")[0].outputs[0].shape == (1, 768)
    assert text.of_variant("vit_l_14")[0].outputs[0].shape == (1, 77, 768)
    assert image.of_variant(None) == overlay.load(None)["clip_image"].branches
    assert (
        route(text, None, Wishes(variant="standard"), {"clip_text": Readiness.READY}).branch.name
        == "clip_text"
    )
    standard = _load(tmp_path, CLIP, '[default]\nclip_text = "vit_l_14"\n')["clip_text"]
    assert standard.variant_or_default(None) == "vit_l_14"


def test_others_models_are_mapped(tmp_path: Path) -> None:
    """A model of another name with other tensors: pixels or prepared frames, as it takes them."""
    text = """
[[variant]]
family = "detect"
name = "ppe"
labels = ["helmet", "head"]
layout = "UINT8 NHWC"
inputs = ["image"]
output = "predictions"
[[variant.branch]]
name = "PPE detector"
size = 640
[[variant]]
family = "depth"
name = "zoe"
layout = "FP32 NCHW"
[[variant.branch]]
name = "zoedepth"
size = 384
inputs = ["pixel_values"]
"""
    branches = _load(tmp_path, text).branches
    ppe, zoe = branches["PPE detector"], branches["zoedepth"]
    assert ppe.inputs == (TensorSpec("image", "UINT8", (1, 640, 640, 3)),)
    assert ppe.outputs == (TensorSpec("predictions", "FP32", (1, 6, 8400)),)
    assert ppe.compact is None
    assert [(model.kind, model.mapped) for model in (*ppe.models, *zoe.models)] == [("onnx", True)] * 2
    assert zoe.inputs == (TensorSpec("pixel_values", "FP32", (1, 3, 384, 384)),)


def test_frames_may_be_prepared_otherwise(tmp_path: Path) -> None:
    """A part of the rule changes; then the shared graph of UINT8 frames isn't this variant's."""
    text = HELMET.replace(
        "[[variant.branch]]", "[variant.prepare]\nscale = 1.0\npad = 0\n[[variant.branch]]", 1
    )
    branch = _load(tmp_path, text).branches["helmet_640"]
    assert branch.prepare is not None
    assert (branch.prepare.scale, branch.prepare.pad, branch.prepare.std) == (1.0, 0, (1.0, 1.0, 1.0))
    assert branch.compact is None


FAULTS = {
    "no TOML": ("[[variant]\n", 1, ""),
    "unknown table": ("schema_version = 1\n[[varriant]]\n", 2, "varriant"),
    "unknown key": (HELMET + "colour = 1\n", 11, "colour"),
    "unknown key of a variant": (HELMET.replace("labels", "lables", 1), 4, "lables"),
    "version": ("schema_version = 2\n", 1, "schema_version"),
    "unknown family": (HELMET.replace('"detect"', '"detekt"'), 2, "no family 'detekt'"),
    "no name": (HELMET.replace('name = "helmet"\n', ""), 1, "'name' is missing"),
    "a name of ours": (HELMET.replace('"helmet"', '"n"'), 3, "replace = true"),
    "nothing to replace": (HELMET.replace('"helmet"', '"helmet"\nreplace = true'), 3, "no variant helmet"),
    "a model of ours": (HELMET.replace("helmet_640", "yolo11n_640"), 9, "yolo11n_640 is a model of detect's"),
    "a model twice": (HELMET.replace("helmet_640", "helmet_320"), 9, "helmet_320 is a model of detect's"),
    "a name that is a size": (HELMET.replace("helmet_640", "640"), 9, "no number and no tier"),
    "a name with a comma": (HELMET.replace('"helmet"', '"a,b"'), 3, "letters, digits"),
    "no multiple of 32": (HELMET.replace("size = 640", "size = 650"), 10, "no multiple of 32"),
    "sizes twice": (HELMET.replace("size = 640", "size = 320"), 8, "sizes must rise"),
    "no branches": (HELMET.partition("[[variant.b")[0], 1, "at least one"),
    "no labels": (HELMET.replace('labels = ["person", "bicycle", "car"]\n', ""), 1, "class names"),
    "labels that are not there": (HELMET.replace('["person", "bicycle", "car"]', '"no.txt"'), 4, "no.txt"),
    "an empty label": (HELMET.replace("bicycle", ""), 4, "line 2 is no class name"),
    "no size": (HELMET.replace("size = 640\n", ""), 8, "a branch has a size"),
    "unknown layout": (HELMET.replace("size = 640", 'size = 640\nlayout = "NCHW"'), 11, "FP32 NCHW"),
    "too many inputs": (HELMET.replace("size = 640", 'size = 640\ninputs = ["a", "b"]'), 11, "names 1 tensors"),
    "a fit that boxes can't have": (HELMET + '[variant.prepare]\nfit = "crop"\n', 12, "fit"),
    "an unknown fit": (HELMET + '[variant.prepare]\nfit = "squash"\n', 12, "squash"),
    "no prepare of text": (CLIP + "[variant.prepare]\nscale = 1\n", 14, "takes no frames"),
    "unknown default": ('[default]\ndetect = "helmet"\n', 2, "no variant 'helmet'"),
    "default of no family": ('[default]\ndetekt = "n"\n', 2, "no family 'detekt'"),
    "nothing to leave out": ('[leave_out]\nbranches = ["yolo99*"]\n', 2, "'yolo99*'"),
    "dimension of boxes": (HELMET.replace("labels", "dimension = 5\nlabels", 1), 4, "no embeddings"),
    "four sizes": (
        HELMET + "".join(f'[[variant.branch]]\nname = "h{s}"\nsize = {s}\n' for s in (96, 128)), 5, "at most 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_with_file_and_line(tmp_path: Path, name: str) -> None:
    """Whoever reads the message opens the file at the right place."""
    text, line, words = FAULTS[name]
    message = _fault(tmp_path, text)
    assert re.match(rf"{re.escape(str(tmp_path))}/catalogue/0\.toml:{line}: ", message), message
    assert words in message


def test_a_variant_in_two_files_is_refused(tmp_path: Path) -> None:
    """The message says where the other one stands."""
    message = _fault(tmp_path, HELMET, HELMET)
    assert message.startswith(str(tmp_path / "catalogue/1.toml:3: "))
    assert str(tmp_path / "catalogue/0.toml:1") in message


def test_one_variant_in_two_families_is_refused(tmp_path: Path) -> None:
    """GATEWAY_VARIANT couldn't say which is meant; only families of one component share a name."""
    text = '[[variant]]\nfamily = "depth"\nname = "helmet"\n[[variant.branch]]\nname = "d"\nsize = 256\n'
    assert "variant helmet stands twice" in _fault(tmp_path, HELMET, text)


def test_a_file_alone_is_a_catalogue(tmp_path: Path) -> None:
    """A folder isn't needed; what isn't there is told by its name."""
    file = tmp_path / "mine.toml"
    file.write_text(HELMET)
    assert "helmet_640" in overlay.load(file).branches
    with pytest.raises(CatalogueError, match=r"other\.toml: there is no such file"):
        overlay.load(tmp_path / "other.toml")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, None),
        ("helmet", None),
        ("helmet,large", None),
        ("helmet, vit_l_14", None),
        ("helmet,n", "variants of one family (detect)"),
        ("hemlet", "not 'hemlet'"),
    ],
)
def test_default_variants_are_one_per_family(tmp_path: Path, text: str | None, fault: str | None) -> None:
    """GATEWAY_VARIANT may name several, of different families."""
    found = _load(tmp_path, HELMET, CLIP).variant_fault(text)
    assert found is None if fault is None else fault in (found or "")


def test_own_variants_are_loaded_without_being_the_default(tmp_path: Path) -> None:
    """They were added to be named; GATEWAY_MODELS=auto means them too."""
    names = [branch.name for branch in of_service(_load(tmp_path, HELMET), Service("n"))]
    assert {"helmet_320", "helmet_640"} < set(names)
    assert names.index("yolo11n_640") < names.index("helmet_320")
