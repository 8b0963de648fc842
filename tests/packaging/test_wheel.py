"""Contents of the wheel: every file of the program and its data in one package, and nothing else."""

from __future__ import annotations

import re
import zipfile
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

import pytest
from support.distributions import tracked
from support.paths import ROOT

from app import __version__

NAME = "triton_vision_gateway"
DATA = ("profiles", "triton/models", "docs/astronaut.jpg")


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """Paths in the wheel."""
    return set(zipfile.ZipFile(wheel).namelist())


def text(wheel: Path, name: str) -> str:
    """A file of the wheel's metadata."""
    return zipfile.ZipFile(wheel).read(f"{NAME}-{__version__}.dist-info/{name}").decode()


def test_the_wheel_holds_the_program_and_what_it_reads(names: set[str]) -> None:
    """Each tracked file of the rooms, profiles, config.pbtxt and the picture of the first request; no other file."""
    expected = {f"{NAME}/_code/{path}" for path in tracked("app", "routing", "export")}
    expected |= {f"{NAME}/_data/{path}" for path in tracked(*DATA)} | set(tracked(NAME))
    assert {name for name in names if ".dist-info/" not in name} == expected
    for needed in (
        "_code/routing/branches.toml",
        "_code/routing/labels/coco80.txt",
        "_data/profiles/detect_embedded.yaml",
    ):
        assert f"{NAME}/{needed}" in names


def test_nothing_at_the_top_of_site_packages_has_a_common_name(names: set[str], wheel: Path) -> None:
    """One package, and the metadata."""
    assert {PurePosixPath(name).parts[0] for name in names} == {NAME, f"{NAME}-{__version__}.dist-info"}
    assert text(wheel, "top_level.txt").split() == [NAME]


def test_no_tests_and_no_weights(names: set[str]) -> None:
    """Weights have licences of their own."""
    assert [n for n in names if re.search(r"(^|/)tests?/|\.(onnx|pt|pth|bin|safetensors|pyc)$", n)] == []


def test_the_metadata_say_what_it_is(wheel: Path) -> None:
    """Version, licence, types and the command."""
    metadata = HeaderParser().parsestr(text(wheel, "METADATA"))
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert "starter" in metadata.get_all("Provides-Extra", [])
    assert text(wheel, "entry_points.txt").split() == [
        "[console_scripts]",
        "gateway",
        "=",
        f"{NAME}.__main__:main",
    ]


def test_the_image_says_the_same_version() -> None:
    """A label of the Dockerfile, the one place that can't read it."""
    label = re.search(r'image\.version="([^"]+)"', (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert label is not None
    assert label[1] == __version__
