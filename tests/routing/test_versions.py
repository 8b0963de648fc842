"""Further versions of branches: their models, where they are found, and which folder serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from routing import catalogue, overlay, reachable, versions
from routing.catalogue import CatalogueError
from routing.policy import Wishes

OURS = catalogue.load()
KNOWN = versions.with_versions(OURS, {"yolo11n_640": ("10", "2"), "midas_384": ("2",)})


def test_a_version_has_models_of_its_own_and_shares_the_preprocess_graph() -> None:
    """Names end in the number; contracts, sizes and thresholds are those of the branch."""
    depth, detector = KNOWN.branches["midas_384_v2"], KNOWN.branches["yolo11n_640_v2"]
    assert [model.name for model in depth.models] == [
        "midas_384_v2",
        "preprocess_midas_384",
        "midas_384_v2_onnx",
    ]
    assert detector.compact is not None
    assert [model.name for model in detector.compact.models] == [
        "yolo11n_640_v2_uint8", "preprocess_yolo11_640", "yolo11n_640_v2",
    ]  # fmt: skip
    assert (detector.compact.twin_of, detector.compact.version_of) == ("yolo11n_640_v2", "yolo11n_640_uint8")
    assert (depth.inputs, depth.outputs, depth.size) == (
        OURS.branches["midas_384"].inputs, OURS.branches["midas_384"].outputs, 384,
    )  # fmt: skip
    assert [one.version for one in KNOWN.branches["yolo11n_640"].versions] == ["2", "10"]
    assert KNOWN.ready_checklist(required=True, variant="x") == OURS.ready_checklist(
        required=True, variant="x"
    )


def test_half_precision_has_versions_of_its_own(tmp_path: Path) -> None:
    """Whichever of the two routing prefers."""
    (tmp_path / "half.toml").write_text('[precision]\nfp16 = ["midas_384"]\n')
    for precision in ("fp32", "fp16"):
        known = versions.with_versions(
            overlay.load(tmp_path, precision=precision),
            {"midas_384_fp16": ("2",)},  # type: ignore[arg-type]
        )
        version = known.branches["midas_384_fp16_v2"]
        assert (version.version_of, version.precision, version.models[-1].name) == (
            "midas_384_fp16", "fp16", "midas_384_fp16_v2_onnx",
        )  # fmt: skip
        assert known.branches["midas_384"].versions == ()


@pytest.mark.parametrize("name", ["yolo11n_999", "yolo11n_640_uint8"])
def test_only_branches_have_versions(name: str) -> None:
    """A twin goes with its branch."""
    with pytest.raises(CatalogueError, match="there is no such branch"):
        versions.with_versions(OURS, {name: ("2",)})


def test_versions_are_found_in_a_repository(tmp_path: Path) -> None:
    """By the names of folders; what is another model, a part or a file isn't one."""
    for name in (
        "midas_384_v2",
        "midas_384_v2_onnx",
        "midas_384_v02",
        "yolo11n_640_v10",
        "yolo11n_640_v2",
        "other_v2",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "midas_256_v2").write_text("a file")
    assert versions.found_in(tmp_path, OURS) == {"midas_384": ("2",), "yolo11n_640": ("2", "10")}
    assert versions.found_in(tmp_path / "nowhere", OURS) == {}


def test_the_highest_number_serves(tmp_path: Path) -> None:
    """As in Triton; hidden folders, files and other names don't count."""
    assert versions.served_folder(tmp_path) == tmp_path / "1"
    for name in ("2", "10", ".version-11", "012", "next"):
        (tmp_path / name).mkdir()
    (tmp_path / "20").write_text("a file")
    assert versions.served_folder(tmp_path) == tmp_path / "10"


def test_requests_reach_the_versions_that_they_ask_for() -> None:
    """Versions are loaded with their branch."""
    detect = KNOWN["detect"]

    def names(wishes: Wishes, **more: bool) -> set[str]:
        return {branch.name for branch in reachable.reachable(detect, wishes, "n", **more)}

    assert names(Wishes(branch="yolo11n_640_v2")) == {"yolo11n_640_v2"}
    assert names(Wishes(branch="yolo11n_640", version="2")) == {"yolo11n_640_v2"}
    assert names(Wishes(branch="yolo11n_640", version="2", fallback=True)) >= {
        "yolo11n_640",
        "yolo11n_640_v2",
    }
    loaded = [branch.name for branch in reachable.of_service(KNOWN, reachable.Service("n"))]
    assert {"yolo11n_640", "yolo11n_640_v2", "yolo11n_640_v10", "midas_384_v2"} < set(loaded)
    assert loaded.index("midas_384_v2") > max(loaded.index(name) for name in OURS.branches if name in loaded)
