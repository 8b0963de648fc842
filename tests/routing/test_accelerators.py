"""Accelerators in a catalogue: the branches that get one, their options, and every fault with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from routing import overlay
from routing.accelerators import Accelerator
from routing.catalogue import Catalogue, CatalogueError

TENSORRT = '{ name = "tensorrt", precision = "fp16", workspace = "1GiB", cache = "/var/cache/tensorrt" }'


def _load(tmp_path: Path, text: str) -> Catalogue:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return overlay.load(path)


def _fault(tmp_path: Path, text: str) -> str:
    with pytest.raises(CatalogueError) as caught:
        _load(tmp_path, text)
    return str(caught.value)


def test_branches_have_none_by_default() -> None:
    """TensorRT is off unless somebody asks for it."""
    assert {branch.accelerator for branch in overlay.load(None).branches.values()} == {None}


def test_patterns_choose_the_branches(tmp_path: Path) -> None:
    """A twin runs on its branch's model, so it has the same accelerator; the models that prepare have none."""
    text = f'[[accelerate]]\nbranches = ["yolo11x_*", "midas_512"]\naccelerator = {TENSORRT}\n'
    catalogue = _load(tmp_path, text)
    wanted = Accelerator("tensorrt", "fp16", 1 << 30, "/var/cache/tensorrt")
    assert {
        name: branch.accelerator for name, branch in catalogue.branches.items() if branch.accelerator
    } == dict.fromkeys(
        [f"yolo11x_{size}{end}" for size in (320, 640, 960) for end in ("", "_uint8")] + ["midas_512"], wanted
    )
    assert {name for name, model in catalogue.models.items() if model.accelerator} == {
        "yolo11x_320", "yolo11x_640", "yolo11x_960", "midas_512_onnx",
    }  # fmt: skip


def test_half_precision_has_its_own_accelerator(tmp_path: Path) -> None:
    """A pattern that names both precisions accelerates both; the name of one accelerates that alone."""
    half = '[precision]\nfp16 = ["midas_*"]\n'
    text = half + '[[accelerate]]\nbranches = ["midas_256*", "midas_384_fp16"]\naccelerator = "tensorrt"\n'
    branches = _load(tmp_path, text).branches
    assert {name for name, branch in branches.items() if branch.accelerator} == {
        "midas_256", "midas_256_fp16", "midas_384_fp16",
    }  # fmt: skip


def test_a_branch_of_one_s_own_says_it_itself(tmp_path: Path) -> None:
    """A name alone takes the defaults."""
    text = (
        '[[variant]]\nfamily = "detect"\nname = "mine"\nlabels = ["a"]\n'
        '[[variant.branch]]\nname = "mine_320"\nsize = 320\naccelerator = "tensorrt"\n'
    )
    branch = _load(tmp_path, text).branches["mine_320"]
    assert branch.accelerator == Accelerator("tensorrt")
    assert branch.compact is not None
    assert branch.compact.models[-1] is branch.models[-1]


@pytest.mark.parametrize(
    ("accelerator", "said"),
    [
        ('"rocket"', "name is one of tensorrt, cuda, openvino, got 'rocket'"),
        ("3", "name is one of tensorrt, cuda, openvino, got '3'"),
        ('{ precision = "fp16" }', "name is one of tensorrt, cuda, openvino, got 'None'"),
        ('{ name = "tensorrt", precision = "int8" }', "precision is fp32 or fp16, got 'int8'"),
        ('{ name = "tensorrt", workspace = "1 lot" }', "workspace: '1 lot': memory is a number with a unit"),
        (
            '{ name = "tensorrt", workspace = 1073741824 }',
            "workspace: '1073741824': memory is a number with a unit",
        ),
        ('{ name = "tensorrt", cache = "cache" }', "cache is the absolute path of a folder"),
        ('{ name = "cuda", cache = "/cache" }', "cuda takes memory_limit, not cache"),
        ('{ name = "openvino", precision = "fp16" }', "openvino takes no options, not precision"),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path: Path, accelerator: str, said: str) -> None:
    """The message names the file, the line of the key, and what is right."""
    fault = _fault(tmp_path, f'[[accelerate]]\nbranches = ["midas_*"]\naccelerator = {accelerator}\n')
    assert fault.startswith(f"{tmp_path / 'mine.toml'}:3: ")
    assert said in fault


@pytest.mark.parametrize(
    ("branches", "said"),
    [
        ('["nobody_*"]', "'nobody_*' can't be accelerated: there is no such branch"),
        ("[7]", "'7' can't be accelerated: there is no such branch"),
        ("[]", "branches: is missing"),
    ],
)
def test_a_pattern_that_names_nothing_is_refused(tmp_path: Path, branches: str, said: str) -> None:
    """A typo doesn't leave a branch slow without a word."""
    fault = _fault(tmp_path, f'[[accelerate]]\naccelerator = "tensorrt"\nbranches = {branches}\n')
    assert fault.startswith(f"{tmp_path / 'mine.toml'}:3: ")
    assert said in fault


def test_models_of_others_are_not_accelerated(tmp_path: Path) -> None:
    """Their config.pbtxt isn't ours to write."""
    model = (
        '[[variant]]\nfamily = "detect"\nname = "theirs"\nlabels = ["a"]\nlayout = "FP32 NCHW"\n'
        '[[variant.branch]]\nname = "theirs"\nsize = 320\n'
    )
    text = f'{model}[[accelerate]]\nbranches = ["theirs"]\naccelerator = "tensorrt"\n'
    assert "its config.pbtxt is written by others" in _fault(tmp_path, text)
    assert "its config.pbtxt is written by others" in _fault(tmp_path, f'{model}accelerator = "tensorrt"\n')
