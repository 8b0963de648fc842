"""`gateway compare`: two versions of a branch on the same inputs, in this process and over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.models.repository import DEPTH, OTHERS, build, build_version
from support.servers.gateway import png, scene, server

from app import cli
from app.commands.compare import differences

NAMES = ("yolo11n_320", *DEPTH, *OTHERS)
Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a branch of every family, and two pictures."""
    root = tmp_path_factory.mktemp("compare")
    build(root / "models", NAMES)
    for name in NAMES:
        build_version(root / "models", name, "2")
    for number, patch in enumerate(((0, 64, 64, 32), (1, 192, 64, 32))):
        (root / f"{number}.png").write_bytes(png(scene(320, 320, patch)))
    return root


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command with `--json` over the pictures; what it prints on both channels."""
    monkeypatch.setenv("GATEWAY_EMBEDDED_THREADS", "1")
    monkeypatch.setenv("GATEWAY_GRAPH_CACHE", "")

    def run(branch: str, *more: str, where: tuple[str, ...] = ()) -> tuple[int, Any, str]:
        inputs = ["--text", "a cat"] if branch == "clip_text" else [str(folder / f"{n}.png") for n in (0, 1)]
        where = where or ("--repository", str(folder / "models"))
        code = cli.main(["compare", "--branch", branch, "--json", *where, *more, *inputs])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err

    return run


@pytest.mark.parametrize("branch", NAMES)
def test_each_family_has_its_measure(run: Run, branch: str) -> None:
    """The second version doubles what the first answers; models and signatures of both are told."""
    code, said, _ = run(branch, "--versions", "1", "2", "--most", "1")
    assert code == 0
    first, second = said["versions"]
    assert [row["models_used"][0]["model_version"] for row in (first, second)] == ["1", "2"]
    assert first["model_signature"] != second["model_signature"]
    row = said["inputs"][0]
    expected = {
        "yolo11n_320": {"boxes_first": 1, "boxes_second": 1, "matched": 0, "difference": 1.0},
        "clip_image_224": {"cosine": 1.0},
        "clip_text": {"cosine": 1.0},
    }.get(branch, {})
    assert {key: round(row[key], 5) for key in expected} == expected
    assert said["failed"] == 0
    assert 0 <= said["mean_difference"] <= said["greatest_difference"] <= 1


def test_a_difference_above_the_limit_is_an_exit_code(run: Run) -> None:
    """The same weights differ by nothing; others by more than the limit."""
    code, said, _ = run("midas_256", "--versions", "1", "2", "--most", "0.01")
    assert (code, said["most"]) == (1, 0.01)
    assert said["greatest_difference"] > 0.01
    assert run("midas_256", "--versions", "1", "2")[0] == 0


@pytest.mark.parametrize(
    ("branch", "versions", "why"),
    [
        ("midas_256", ("1", "1"), "name two versions"),
        ("midas_256", ("1", "7"), "midas_256 has no version 7; it has 1, 2"),
        ("midas_257", ("1", "2"), "no branch is called midas_257"),
    ],
)
def test_what_is_not_there_is_told(run: Run, branch: str, versions: tuple[str, str], why: str) -> None:
    """Exit code 2, and what there is."""
    code, said, error = run(branch, "--versions", *versions)
    assert (code, said) == (2, None)
    assert why in error


def test_an_input_that_fails_is_an_exit_code(folder: Path, run: Run, tmp_path: Path) -> None:
    """The others are compared."""
    (tmp_path / "none.png").write_bytes(b"no picture")
    code, said, _ = run("midas_256", "--versions", "1", "2", str(tmp_path / "none.png"))
    assert (code, said["failed"], len(said["inputs"])) == (1, 1, 3)


def test_a_running_gateway_is_asked(folder: Path, run: Run, tmp_path: Path) -> None:
    """The answers are those of this process; the table is for people."""
    settings = {"embedded_threads": 1, "require_ready": "midas_256,midas_256_v2", "models": "midas_256*"}
    with server(folder / "models", tmp_path / "log", **settings) as (http, _):
        code, there, _ = run("midas_256", "--versions", "1", "2", where=("--url", str(http.base_url)))
    here = run("midas_256", "--versions", "1", "2")[1]
    assert code == 0
    assert there["inputs"] == here["inputs"]
    assert there["versions"] == here["versions"]


def _box(*corners: float, score: float = 0.5, class_id: int = 0) -> dict[str, Any]:
    return {"box": corners, "score": score, "class_id": class_id}


def test_boxes_are_compared_by_their_overlap() -> None:
    """Pairs are of one class, the best first; a box alone counts as no overlap."""
    one, half = _box(0, 0, 10, 10), _box(0, 0, 10, 5, score=0.75)
    assert differences.of_boxes([], [])["difference"] == 0
    assert differences.of_boxes([one], [one])["difference"] == 0
    assert differences.of_boxes([one], [])["difference"] == 1
    assert differences.of_boxes([one], [_box(0, 0, 10, 10, class_id=1)])["difference"] == 1
    found = differences.of_boxes([one, _box(50, 50, 60, 60)], [half])
    assert (found["matched"], found["mean_iou"], found["greatest_score_difference"]) == (1, 0.5, 0.25)
    assert found["difference"] == pytest.approx(1 - 2 * 0.5 / 3)


def test_maps_vectors_and_scenes_are_compared() -> None:
    """A map beside its range, vectors by their angle, scenes by the five best."""
    ramp = np.linspace(0, 10, 11)
    assert differences.of_maps(ramp, ramp)["difference"] == 0
    assert differences.of_maps(ramp, ramp + 1)["difference"] == pytest.approx(0.1)
    assert differences.of_maps(np.ones(3), np.zeros(3))["difference"] == 1
    assert differences.of_embeddings([1, 0], [0, 2])["difference"] == 1
    assert differences.of_embeddings([1, 1], [2, 2])["difference"] == pytest.approx(0)
    assert differences.of_embeddings([1, 1], [1, 1, 1])["difference"] == 1
    scenes = [{"category_id": number, "probability": 0.1} for number in range(7)]
    assert differences.of_scenes(scenes[:5], scenes[2:])["difference"] == pytest.approx(0.4)
