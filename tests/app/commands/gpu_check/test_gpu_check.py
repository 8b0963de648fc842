"""`gateway gpu-check` on a machine without a GPU: every part runs, and what is missing is said line by line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.cli import main
from app.commands.gpu_check import report
from app.commands.gpu_check.runs import CRASHED, alone
from app.process import gpus
from app.settings import Settings

BRANCHES = "yolo11n_320,midas_256"
TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def checked(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """The exit code of one check of two branches, and the folder of its files."""
    folder = tmp_path_factory.mktemp("gpu check")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpus.shutil, "which", lambda _: None)  # also where the tests run beside a GPU
        code = main(
            ["gpu-check", "--repository", str(repository), "--branches", BRANCHES, "--repeats", "2",
             "--json", str(folder / "check.json"), "--picture", str(folder / "check.png")]
        )  # fmt: skip
    return code, folder


@pytest.fixture
def document(checked: tuple[int, Path]) -> dict[str, Any]:
    """The JSON of that check."""
    found: dict[str, Any] = json.loads((checked[1] / "check.json").read_text())
    return found


def test_every_branch_ran(checked: tuple[int, Path], document: dict[str, Any]) -> None:
    """Alone and together, with times, the device that ran it, and memory beside the estimate."""
    assert checked[0] == 0
    for row in document["alone"]:
        assert (row["status"], row["device"], row["engine"], row["precision"]) == (
            "ok",
            "cpu",
            "onnx",
            "fp32",
        )
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert row["taken_bytes"] > 0
        assert row["estimate_bytes"] > 0
    names = ["midas_256", "yolo11n_320"]  # in the order of the plan
    assert [row["name"] for row in document["alone"]] == names
    assert [row["name"] for row in document["together"]["runs"]] == names
    first, second = (row["memory"] for row in document["together"]["runs"])
    assert document["together"]["before_bytes"] < first <= second


def test_what_is_missing_is_said(document: dict[str, Any]) -> None:
    """A reader knows what a GPU would add."""
    said = "\n".join(document["missing"])
    for words in (
        "a GPU: nvidia-smi",
        "ONNX Runtime for GPUs",
        "TensorRT in ONNX Runtime",
        "half beside single",
    ):
        assert words in said
    assert document["gpus"] == []
    assert document["reference"]["p50_ms"]["midas_256"] == 96.3


def test_the_picture_shows_it(checked: tuple[int, Path]) -> None:
    """A PNG that isn't blank."""
    with Image.open(checked[1] / "check.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
        assert len(set(picture.convert("L").resize((64, 16)).get_flattened_data())) > 8


def test_a_branch_that_fails_is_a_row(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are measured all the same, and the exit code says it."""
    for name in ("yolo11n_320", "yolo11n_640"):
        shutil.copytree(repository / name, tmp_path / name)
    (tmp_path / "yolo11n_320/1/model.onnx").write_bytes(b"broken")
    words = [
        "gpu-check",
        "--repository",
        str(tmp_path),
        "--branches",
        "yolo11n_320,yolo11n_640",
        "--repeats",
        "1",
    ]
    assert main(words) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    states = [line[:2] for line in lines if line and line[0].startswith("yolo11n")]
    assert states == [["yolo11n_320", "model_not_ready"], ["yolo11n_640", "ok"]] * 2


def test_a_process_that_dies_is_a_row(repository: Path) -> None:
    """A driver that crashes takes no other branch with it."""
    run, taken = alone(Settings(engine="embedded", repository=repository), "nobody", 1, TIMEOUT_S)
    assert (run.status, taken) == (CRASHED, None)
    assert "exit code 1" in run.detail


def test_wrong_places_for_the_results_are_refused_first(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before minutes of work."""
    for option in ("--json", "--picture"):
        for place in (tmp_path, tmp_path / "nowhere" / "file"):
            assert main(["gpu-check", "--repository", str(repository), option, str(place)]) == 2
            assert "is a folder, or in a folder that isn't there" in capsys.readouterr().err


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says what to do."""
    assert main(["gpu-check", "--repository", str(tmp_path)]) == 2
    assert "no branch is built" in capsys.readouterr().err


def test_lines_name_a_card_and_a_branch_that_did_not_fit() -> None:
    """The reference stands beside the time here; a branch out of memory has its reason."""
    card = gpus.Gpu(0, "NVIDIA GeForce RTX 2060", 6 << 30, 300 << 20, "560.35.03", "7.5")
    results = report.Results(gpus=[card], engine="ONNX Runtime in this process", memory=card.total)
    run = report.Run(
        "yolo11x_960", "insufficient_gpu_memory", "CUDA failure 2: out of memory", memory=5 << 30
    )
    results.together.append(run)
    assert next(iter(report.devices(results))) == (
        "GPU 0: NVIDIA GeForce RTX 2060, 6.0 GiB, 300 MiB in use, driver 560.35.03, compute capability 7.5"
    )
    line = report.alone_line(report.Alone(run, None, 4 << 30))
    assert line.split() == [
        "yolo11x_960", "insufficient_gpu_memory", "OOM", "?", "4.0", "GiB", *run.detail.split(),
    ]  # fmt: skip
    assert not results.good
