"""Further versions in the repository: made beside the default one, put in its place, removed; never overwritten."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from support.models import repository as test_repository
from support.models.repository import CATALOGUE, build_version

from export import __main__ as cli
from export import build, manifest, plan, versions
from export.exporters import EXPORTERS
from export.weights import Weights
from routing.catalogue import Branch
from routing.versions import found_in, served_folder

DETECTOR, TWIN, DEPTH = "yolo11n_320", "yolo11n_320_uint8", "midas_256"
Run = Callable[..., int]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with second versions of a branch with a twin, and of an ensemble."""
    root = test_repository.build(tmp_path / "repository", (DETECTOR, TWIN, DEPTH))
    for name in (DETECTOR, DEPTH):
        build_version(root, name, "2")
    return root


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`python -P -m export …` over these folders, in this process."""

    def run(command: str, *arguments: str) -> int:
        folders = ["--repository", str(tmp_path / "repository"), "--models", str(tmp_path / "models")]
        return cli.main([command, *arguments, *folders, "--catalogue", str(tmp_path / "catalogue")])

    return run


def _digest(root: Path, model: str) -> str:
    record = manifest.read(model, root)
    assert record is not None, model
    return record.digest


def _folders(root: Path, model: str) -> list[str]:
    return sorted(path.name for path in (root / model).iterdir() if path.is_dir())


def _everything(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An exporter of YOLO11 whose graphs are a few bytes, and the names of what it makes."""
    made: list[str] = []

    def export(branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]:
        made.append(branch.name)
        return f"{branch.name} {weights.source}".encode(), ()

    module = ModuleType("small_exporter")
    module.export = export  # type: ignore[attr-defined]  # made up for the test
    monkeypatch.setitem(sys.modules, "small_exporter", module)
    table = {"detect": replace(EXPORTERS["detect"], module="small_exporter", shared=False)}
    monkeypatch.setattr(plan, "EXPORTERS", table)
    monkeypatch.setattr(build, "EXPORTERS", table)
    return made


def test_an_export_lies_beside_what_serves(
    tmp_path: Path, run: Run, exporter: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The files that were there stay as they are; a number that is taken is refused before anything is made."""
    root = tmp_path / "repository"
    assert run("models", "--weights", "random", "--as-version", "2") == 1
    assert "isn't built yet" in capsys.readouterr().err
    assert run("models", "--weights", "random") == 0
    before = _everything(root)
    assert run("models", "--weights", "random", "--as-version", "2") == 0
    after = _everything(root)
    assert {name: after[name] for name in before} == before
    assert exporter[3:] == ["yolo11n_320_v2", "yolo11n_640_v2", "yolo11n_960_v2"]
    assert found_in(root, CATALOGUE) == dict.fromkeys(("yolo11n_320", "yolo11n_640", "yolo11n_960"), ("2",))
    assert served_folder(root / "yolo11n_640_v2") == root / "yolo11n_640_v2/2"
    assert (root / "yolo11n_640_v2_uint8/2").is_dir()
    assert 'model_name: "yolo11n_640_v2"' in (root / "yolo11n_640_v2_uint8/config.pbtxt").read_text()
    listed = json.loads((tmp_path / "models/manifest.json").read_bytes())["models"]
    assert listed["yolo11n_640_v2"]["version"] == "2"
    assert "version" not in listed["yolo11n_640"]
    made = len(exporter)
    for number, why in (("2", "is there already"), ("1", "is the default one"), ("0", "whole number from 1")):
        assert run("models", "--weights", "random", "--as-version", number) == 1
        assert why in capsys.readouterr().err
    assert len(exporter) == made
    assert cli.main(["repository", "--check", "--repository", str(root)]) == 0


@pytest.mark.parametrize("name", [DETECTOR, DEPTH])
def test_a_promoted_version_takes_the_place_of_the_default_one(
    tmp_path: Path, root: Path, run: Run, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They change places, ensembles and twins included; and back again, which leaves all as it was."""
    weights = CATALOGUE.branches[name].weights_model
    candidate = weights.replace(name, f"{name}_v2")
    old, new, files = _digest(root, weights), _digest(root, candidate), _everything(root)
    assert run("promote", name, "2") == 0
    assert "version 1 is kept beside it" in capsys.readouterr().out
    kept = weights.replace(name, f"{name}_v1")
    assert (_digest(root, weights), _digest(root, kept)) == (new, old)
    assert found_in(root, CATALOGUE)[name] == ("1",)
    models = (name, weights, *((TWIN,) if name == DETECTOR else ()))
    assert {model: _folders(root, model) for model in models} == {model: ["2"] for model in models}
    assert json.loads((tmp_path / "models/manifest.json").read_bytes())["models"][weights]["version"] == "2"
    assert run("promote", name, "1") == 0
    assert _everything(root) == files


def test_a_promotion_that_was_killed_is_made_again(
    root: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step there is a whole version that serves, and the second call ends where the first would have."""
    old, new = _digest(root, DETECTOR), _digest(root, f"{DETECTOR}_v2")
    for steps in range(9):
        left = [steps]

        def one_less(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            for function in ("_copy", "_remove_folder", "_remove_model"):
                original = getattr(versions, function)
                patched.setattr(versions, function, _counted(original, one_less))
            code = run("promote", DETECTOR, "2")
        assert _digest(root, DETECTOR) in (old, new)
        assert code == 130 or run("promote", DETECTOR, "2") == 1
        if code == 130:
            assert run("promote", DETECTOR, "2") == 0
        assert (_digest(root, DETECTOR), _digest(root, f"{DETECTOR}_v1")) == (new, old)
        assert found_in(root, CATALOGUE)[DETECTOR] == ("1",)
        assert run("promote", DETECTOR, "1") == 0


def _counted(function: Callable[..., None], count: Callable[[], None]) -> Callable[..., None]:
    def counted(*arguments: object) -> None:
        count()
        function(*arguments)

    return counted


def test_a_version_is_removed_and_the_default_one_is_not(
    root: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only its own folders go; what isn't there, or serves, is refused."""
    assert run("remove", DEPTH, "2") == 0
    assert "midas_256_v2, midas_256_v2_onnx" in capsys.readouterr().out
    assert found_in(root, CATALOGUE) == {DETECTOR: ("2",)}
    _digest(root, "midas_256_onnx")
    for branch, number, why in (
        (DEPTH, "2", "isn't in"),
        (DEPTH, "1", "is the default one"),
        ("midas_999", "2", "no branch"),
        (TWIN, "2", "no branch"),
        (DEPTH, "x", "no number"),
    ):
        for command in ("remove", "promote"):
            assert run(command, branch, number) == 1
            assert "error: " in (said := capsys.readouterr().err)
            assert why in said or command == "promote"


def test_an_onnx_file_is_published_beside_what_serves(root: Path, run: Run, tmp_path: Path) -> None:
    """A digest of its own, the labels of the branch, and never over what is there."""
    file = tmp_path / "new.onnx"
    file.write_bytes((root / f"{DETECTOR}_v2/2/model.onnx").read_bytes())
    assert run("beside", DETECTOR, "3", str(file)) == 0
    assert _digest(root, f"{DETECTOR}_v3") == _digest(root, f"{DETECTOR}_v2")
    note = json.loads((root / f"{DETECTOR}_v3/3/weights.json").read_bytes())
    assert (note["weights"], note["source"]["name"], len(note["labels"])) == ("checkpoint", "new.onnx", 80)
    assert (root / f"{DETECTOR}_v3_uint8/3").is_dir()
    for number in ("1", "2", "3"):
        assert run("beside", DETECTOR, number, str(file)) == 1
    assert run("beside", DEPTH, "3", str(tmp_path / "none.onnx")) == 1
    assert found_in(root, CATALOGUE) == {DETECTOR: ("2", "3"), DEPTH: ("2",)}
