"""Models are made one by one, with a line each; what fails is told, what was interrupted goes on."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from export import __main__ as cli
from export import artifacts, build, manifest, plan, repository
from export.artifacts import sha256
from export.errors import ExportError
from export.exporters import EXPORTERS
from export.manifest import Source
from export.weights import Weights
from routing import catalogue as catalogues
from routing.catalogue import Branch

CATALOGUE = catalogues.load()
STARTER = ["yolo11n_320", "yolo11n_640", "yolo11n_960"]
STARTER_GRAPHS = ["preprocess_yolo11_320", "preprocess_yolo11_640", "preprocess_yolo11_960"]
PREPROCESS = [name for name, spec in CATALOGUE.models.items() if spec.kind == "preprocess"]

Export = Callable[[Branch, Weights], tuple[bytes, tuple[str, ...]]]


def _graph(branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]:
    """The file of a fake exporter: its bytes follow from the model and the weights."""
    return f"{branch.name} {weights.source}".encode(), ("cat",) * 80 if weights.path else ()


class Fake:
    """An exporter without torch; `export` can be replaced, and `made` lists its calls."""

    def __init__(self) -> None:
        self.export: Export = _graph
        self.made: list[str] = []

    def __call__(self, branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]:
        self.made.append(branch.name)
        return self.export(branch, weights)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a fake exporter in the place of YOLO11's."""
    module, exporter = ModuleType("fake_exporter"), Fake()
    module.export = exporter  # type: ignore[attr-defined]  # made up for the test
    monkeypatch.setitem(sys.modules, "fake_exporter", module)
    fake_detect = replace(
        EXPORTERS["detect"], module="fake_exporter", shared=False
    )  # its files are no graphs
    table = {"detect": fake_detect}
    monkeypatch.setattr(plan, "EXPORTERS", table)
    monkeypatch.setattr(build, "EXPORTERS", table)
    return exporter


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    """`python -P -m export …` over empty folders, in this process."""

    def run(command: str, *arguments: str) -> int:
        folders = ["--repository", str(tmp_path / "repository"), "--models", str(tmp_path / "models")]
        return cli.main([command, *arguments, *folders])

    return run


def _record(root: Path, name: str) -> manifest.Record:
    record = manifest.read(name, root / "repository")
    assert record is not None
    return record


def test_starter_set_is_made_where_it_belongs(
    tmp_path: Path, fake: Fake, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each model lies under models/optimized and, the same file, in the repository; a line each says so."""
    assert run("models", "--weights", "random") == 0
    assert fake.made == STARTER
    for name in STARTER:
        served = tmp_path / "repository" / name / "1" / "model.onnx"
        assert served.samefile(tmp_path / "models" / "optimized" / "yolo11" / f"{name}.onnx")
        assert _record(tmp_path, name).provenance.weights == "random"
        assert (served.with_name("labels.txt").read_text().splitlines()) == list(CATALOGUE["detect"].labels)
        assert (tmp_path / "repository" / f"{name}_uint8" / "1").is_dir()  # Triton wants it of ensembles
    document = json.loads((tmp_path / "models" / "manifest.json").read_bytes())
    assert list(document["models"]) == [*STARTER_GRAPHS, *STARTER]
    first, *lines = capsys.readouterr().out.splitlines()
    digest = _record(tmp_path, STARTER[1]).digest
    pattern = rf"\[2/3\] yolo11n_640  exported [\d.]+ MB in [\d.]+ s, {digest}, weights: random \(seed 0\)"
    assert first.endswith("3 written")
    assert re.fullmatch(pattern, lines[1])
    assert len(lines) == 3


def test_a_repository_elsewhere_can_be_served(tmp_path: Path, fake: Fake, run: Callable[..., int]) -> None:
    """Beside the models stand the configurations without which Triton loads none."""
    run("models", "--weights", "random")
    assert repository.drift(repository.configs(CATALOGUE), tmp_path / "repository") == []


def test_what_is_there_is_skipped(
    tmp_path: Path, fake: Fake, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run makes nothing, says so in a line each, and puts back a file that went missing."""
    run("models", "--weights", "random")
    optimized = tmp_path / "models" / "optimized" / "yolo11" / "yolo11n_320.onnx"
    optimized.unlink()
    capsys.readouterr()
    assert run("models", "--weights", "random") == 0
    assert fake.made == STARTER
    assert optimized.samefile(tmp_path / "repository" / "yolo11n_320" / "1" / "model.onnx")
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0].split()[1:] for line in lines] == [[name, "is", "there"] for name in STARTER]


def test_a_damaged_model_is_made_again(tmp_path: Path, fake: Fake, run: Callable[..., int]) -> None:
    """A model.onnx that isn't the one in weights.json is replaced, and only that one is made."""
    run("models", "--weights", "random")
    (tmp_path / "repository" / "yolo11n_640" / "1" / "model.onnx").unlink()
    (tmp_path / "repository" / "yolo11n_640" / "1" / "model.onnx").write_bytes(b"half a mod")
    assert run("models", "--weights", "random") == 0
    assert fake.made == [*STARTER, "yolo11n_640"]
    assert _record(tmp_path, "yolo11n_640")


def test_a_checkpoint_replaces_random_weights(tmp_path: Path, fake: Fake, run: Callable[..., int]) -> None:
    """Asked for other weights, every model is made again and carries the labels of the checkpoint."""
    run("models", "--weights", "random")
    before = _record(tmp_path, "yolo11n_320").digest
    (tmp_path / "yolo11n.pt").write_bytes(b"trained")
    assert run("models", "--weights", str(tmp_path)) == 0
    record = _record(tmp_path, "yolo11n_320")
    assert (record.provenance.weights, record.provenance.source.name) == ("checkpoint", "yolo11n.pt")
    assert record.digest != before
    labels = tmp_path / "repository" / "yolo11n_320" / "1" / "labels.txt"
    assert labels.read_text().splitlines() == ["cat"] * 80


def test_a_missing_checkpoint_stops_before_anything_is_made(
    tmp_path: Path, fake: Fake, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """With yolo11n.pt but no yolo11x.pt nothing is exported, and the error names the file."""
    (tmp_path / "yolo11n.pt").write_bytes(b"trained")
    assert run("models", "--weights", str(tmp_path), "--variants", "n,x") == 1
    assert fake.made == []
    assert str(tmp_path / "yolo11x.pt") in capsys.readouterr().err


def test_an_interrupted_run_goes_on(
    tmp_path: Path, fake: Fake, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the second model leaves the first one served; the next run makes the rest only."""

    def interrupt(branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]:
        if branch.name == "yolo11n_640":
            raise KeyboardInterrupt
        return _graph(branch, weights)

    fake.export = interrupt
    assert run("models", "--weights", "random") == 130
    assert "run it again" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "models" / "manifest.json").read_bytes())["models"]) == [
        *STARTER_GRAPHS,
        *STARTER[:1],
    ]
    fake.export = _graph
    assert run("models", "--weights", "random") == 0
    assert fake.made == [*STARTER[:2], *STARTER[1:]]
    assert not list(tmp_path.rglob("*.tmp"))


STEPS = ("replace", "unlink", "link", "fsync")  # what changes the disk's picture of a model


def _killed_at(step: int, work: Callable[[], int]) -> bool:
    """Return whether a process that does `work` reached the `step`-th change of the disk, and was killed before it."""
    child = os.fork()
    if child == 0:
        count = itertools.count()

        def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                if next(count) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            return call

        for name in STEPS:  # pathlib looks these up in `os` when it is called
            setattr(os, name, deadly(getattr(os, name)))
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123  # pathlib's own is not at stake
            os.dup2(nowhere.fileno(), 1)
            work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_killed_at_any_step_it_goes_on(tmp_path: Path, fake: Fake, run: Callable[..., int]) -> None:
    """SIGKILL before each change of the disk: what is served is whole, old or new, under its own digest or none."""
    assert run("models", "--weights", "random") == 0
    old = {name: (tmp_path / "repository" / name / "1" / "model.onnx").read_bytes() for name in STARTER}
    (tmp_path / "yolo11n.pt").write_bytes(b"trained")
    trained = Weights("checkpoint", Source("yolo11n.pt", sha256(tmp_path / "yolo11n.pt")))
    new = {name: _graph(CATALOGUE.branches[name], trained)[0] for name in STARTER}
    steps = 0
    while _killed_at(steps, lambda: run("models", "--weights", str(tmp_path / "yolo11n.pt"))):
        steps += 1
        for name in STARTER:
            served = tmp_path / "repository" / name / "1"
            assert (served / "model.onnx").read_bytes() in (old[name], new[name])
            if (served / "weights.json").is_file():
                record = _record(tmp_path, name)  # None, and an error, where the digest isn't the file's
                kind = "checkpoint" if (served / "model.onnx").read_bytes() == new[name] else "random"
                assert record.provenance.weights == kind
    assert steps > 10
    assert all(_record(tmp_path, name).provenance.weights == "checkpoint" for name in STARTER)
    assert not list(tmp_path.rglob("*.tmp"))


def test_two_builds_at_once_are_refused(
    tmp_path: Path, fake: Fake, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The second one says why, and makes nothing."""
    with artifacts.alone(tmp_path / "models"):
        assert run("models", "--weights", "random") == 1
        assert run("repository") == 1
    assert capsys.readouterr().err.count("another run makes models") == 2
    assert fake.made == []


def test_a_failed_export_writes_nothing_and_the_others_go_on(
    tmp_path: Path, fake: Fake, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A graph that is refused isn't served, the exit code says so, and the other sizes are made."""

    def refuse(branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]:
        if branch.name == "yolo11n_640":
            raise ExportError("yolo11n_640: ONNX Runtime and torch differ")
        return _graph(branch, weights)

    fake.export = refuse
    assert run("models", "--weights", "random") == 1
    said = capsys.readouterr()
    assert "[2/3] yolo11n_640  FAILED" in said.out
    assert "ONNX Runtime and torch differ" in said.err
    assert not list((tmp_path / "repository" / "yolo11n_640").glob("1/*"))
    assert _record(tmp_path, "yolo11n_960")


def test_baseline_names_the_families_without_exporter(
    tmp_path: Path, fake: Fake, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The baseline makes yolo11x and all preprocess graphs, and says plainly what it can't make yet."""
    assert run("models", "--set", "baseline", "--weights", "random") == 0
    assert fake.made == ["yolo11x_320", "yolo11x_640", "yolo11x_960"]
    said = capsys.readouterr().out
    for family in ("depth", "flow", "clip_image", "clip_text", "places"):
        assert re.search(rf"^{family}: no exporter yet, not made: ", said, re.MULTILINE)
    for name in PREPROCESS:
        assert _record(tmp_path, name).provenance.weights == "none"


def test_repository_is_written_and_checked(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """`repository` writes configurations and preprocess graphs; `--check` names what drifts, and writes nothing."""
    assert run("repository", "--check") == 1
    assert not (tmp_path / "repository").exists()
    assert run("repository") == 0
    assert run("repository", "--check") == 0
    for name in PREPROCESS:
        optimized = tmp_path / "models" / "optimized" / "preprocess" / f"{name}.onnx"
        assert (tmp_path / "repository" / name / "1" / "model.onnx").samefile(optimized)
        assert _record(tmp_path, name).provenance.source.name == "routing/branches.toml"
    config = tmp_path / "repository" / "raft_256" / "config.pbtxt"
    config.write_text("by hand")
    capsys.readouterr()
    assert run("repository", "--check") == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert str(config) in line
    assert config.read_text() == "by hand"


def test_repository_again_writes_nothing(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run finds everything in place, and repairs a preprocess graph that was damaged."""
    run("repository")
    damaged = tmp_path / "repository" / PREPROCESS[0] / "1" / "weights.json"
    damaged.write_text("")
    capsys.readouterr()
    run("repository")
    assert re.findall(r"(\d+) written", capsys.readouterr().out) == ["0", "1"]
    assert _record(tmp_path, PREPROCESS[0])


def test_two_runs_of_repository_give_the_same_digests(tmp_path: Path, run: Callable[..., int]) -> None:
    """The manifest of the preprocess graphs is the same, byte for byte, wherever it is made."""
    run("repository")
    there = ["--repository", str(tmp_path / "b" / "repository"), "--models", str(tmp_path / "b" / "models")]
    assert cli.main(["repository", *there]) == 0
    first, second = (tmp_path / place / "models" / "manifest.json" for place in (".", "b"))
    assert first.read_bytes() == second.read_bytes()
