"""The plan: models to make, models to keep, and the use of random weights."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.paths import ROOT

from export import manifest, plan
from export.artifacts import write_atomic
from export.errors import ExportError
from export.exporters import EXPORTERS
from export.manifest import Provenance, Source
from export.plan import Places, Planner
from export.weights import Weights, random_weights
from routing import catalogue as catalogues

CATALOGUE = catalogues.load()
BRANCH = CATALOGUE.branches["yolo11n_320"]
EXPORTER = EXPORTERS["detect"]
OFFICIAL = Weights("pretrained", Source("yolo11n.pt", "aa"), Path("yolo11n.pt"))
# What `make models` leaves to the environment with PyTorch.
OTHER_FAMILIES = re.findall(r"^OTHER_FAMILIES = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[
    0
].split(",")
OTHER_EXPORTER = {"onnx": "0.1", "opset": 17, "revision": 0}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Empty folders, and an exporter that needs no torch."""
    monkeypatch.setattr(plan, "EXPORTERS", {"detect": EXPORTER})
    return Places(tmp_path / "repository", tmp_path / "models")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official weights can be had."""
    monkeypatch.setattr(plan, "pretrained", lambda *_, **__: OFFICIAL)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """They can't; the answer lists for every try whether the network was to be asked."""
    tries: list[bool] = []

    def fail(url: str, _: Path, *, online: bool) -> Weights:
        tries.append(online)
        raise ExportError(f"can't download {url}")

    monkeypatch.setattr(plan, "pretrained", fail)
    return tries


def _there(places: Places, kind: manifest.WeightsKind, exporter: dict[str, str | int] | None = None) -> None:
    """A model of that kind lies in the repository."""
    source = {
        "random": random_weights().source,
        "pretrained": OFFICIAL.source,
        "checkpoint": Source("mine.pt", "cc"),
    }[kind]
    optimized = places.optimized("yolo11", BRANCH.name)
    write_atomic(optimized, b"graph")
    provenance = Provenance(kind, source, exporter or EXPORTER.versions())
    manifest.publish(BRANCH.name, optimized, places.repository, provenance)


def _planned(places: Places, asked: str) -> str | None:
    """The kind of weights to make the model from; None: keep it."""
    (task,) = Planner(places, asked).tasks([BRANCH])
    return task.weights.kind if task.weights else None


@pytest.mark.parametrize(
    ("chosen", "variants", "expected"),
    [
        pytest.param("starter", None, {"yolo11n"}, id="starter"),
        pytest.param("starter", ("s", "x"), {"yolo11s", "yolo11x"}, id="other variants"),
        pytest.param("baseline", None, {"yolo11x", "midas", "raft", "clip", "places365"}, id="baseline"),
        pytest.param(
            "all",
            None,
            {f"yolo11{v}" for v in "nsmlx"} | {"midas", "raft", "clip", "places365"},
            id="all",
        ),
    ],
)
def test_sets(chosen: str, variants: tuple[str, ...] | None, expected: set[str]) -> None:
    """Starter is yolo11n alone, baseline is the default variant with every family, all is everything."""
    names = [branch.name for branch in plan.branches(CATALOGUE, chosen, variants)]
    assert {name.split("_")[0] for name in names} == expected
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("chosen", "variants", "detect", "flow"),
    [
        ("starter", None, "n", ""),
        ("starter", ("large",), "n", ""),
        ("baseline", None, "x", "small"),
        ("baseline", ("n",), "n", "small"),
        ("baseline", ("large",), "x", "large"),
        ("baseline", ("n", "small", "large"), "n", "small large"),
        ("all", None, "n s m l x", "small large"),
        ("all", ("s",), "s", "small large"),
    ],
)
def test_variants_of_each_family(
    chosen: str, variants: tuple[str, ...] | None, detect: str, flow: str
) -> None:
    """Large flow is made by `all` or when it is asked for; a family keeps the set's where none of its own is named."""
    made = plan.branches(CATALOGUE, chosen, variants)
    for family, expected in (("detect", detect), ("flow", flow)):
        there = dict.fromkeys(str(branch.variant) for branch in made if branch.family == family)
        assert list(there) == expected.split()


def test_unknown_variant_is_told() -> None:
    """A variant that no family has got is an error that lists those there are."""
    with pytest.raises(ExportError, match="no variant q; there are l, large, m, n, s, small, x"):
        plan.branches(CATALOGUE, "starter", ("n", "q"))


def test_families_narrow_a_set() -> None:
    """Only the branches of the families that are named are made; together they are the whole set."""
    parts = [
        plan.branches(CATALOGUE, "baseline", None, families) for families in (["detect"], OTHER_FAMILIES)
    ]
    assert {branch.family for branch in parts[0]} == {"detect"}
    assert [*parts[0], *parts[1]] == plan.branches(CATALOGUE, "baseline", None)


def test_unknown_family_is_told() -> None:
    """A family that the catalogue hasn't got is an error that lists those there are."""
    with pytest.raises(ExportError, match="no family dteect; there are detect, depth, flow"):
        plan.branches(CATALOGUE, "starter", None, ["dteect"])


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(
    ("there", "asked", "expected"),
    [
        pytest.param(None, "auto", "pretrained", id="nothing there"),
        pytest.param("random", "auto", "pretrained", id="random is retried"),
        pytest.param("pretrained", "auto", None, id="pretrained is kept"),
        pytest.param("checkpoint", "auto", None, id="a checkpoint is kept"),
        pytest.param("random", "random", None, id="random asked and there"),
        pytest.param("checkpoint", "random", "random", id="random asked replaces"),
        pytest.param("random", "pretrained", "pretrained", id="pretrained asked replaces"),
        pytest.param("pretrained", "pretrained", None, id="pretrained asked and there"),
    ],
)
def test_online(places: Places, there: manifest.WeightsKind | None, asked: str, expected: str | None) -> None:
    """Asking for other weights makes the model again; asking for those that are there keeps it."""
    if there:
        _there(places, there)
    assert _planned(places, asked) == expected


@pytest.mark.parametrize(
    ("there", "expected"),
    [(None, "random"), ("random", None), ("pretrained", None), ("checkpoint", None)],
)
def test_auto_offline_keeps_or_goes_random_loudly(
    places: Places,
    offline: list[bool],
    capsys: pytest.CaptureFixture[str],
    there: manifest.WeightsKind | None,
    expected: str | None,
) -> None:
    """Without the network trained models stay; where only random ones are left, stderr says so in a frame."""
    if there:
        _there(places, there)
    assert _planned(places, "auto") == expected
    said = capsys.readouterr().err
    assert ("RANDOM WEIGHTS" in said) == (there in {None, "random"})
    if said:
        assert "yolo11n_320" in said
        assert "can't download https://" in said
        assert len(said.splitlines()) >= 6


@pytest.mark.usefixtures("offline")
def test_auto_offline_keeps_official_weights_of_an_older_exporter(places: Places) -> None:
    """A pretrained model that can't be made again is better than a random one of the newest exporter."""
    _there(places, "pretrained", OTHER_EXPORTER)
    assert _planned(places, "auto") is None


@pytest.mark.usefixtures("online")
def test_another_exporter_builds_again(places: Places) -> None:
    """Other versions of torch or of the exporter make other bytes, so the model is made again."""
    _there(places, "random", OTHER_EXPORTER)
    assert _planned(places, "random") == "random"


def test_a_host_that_failed_is_asked_once(places: Places, offline: list[bool]) -> None:
    """Fifteen models don't wait for fifteen time-outs."""
    tasks = Planner(places, "auto").tasks(plan.branches(CATALOGUE, "all", None))
    assert len(tasks) == 15
    assert offline == [True] + [False] * 14


@pytest.mark.usefixtures("offline")
def test_pretrained_offline_is_an_error(places: Places) -> None:
    """Asked for by name, official weights are never replaced by random ones."""
    with pytest.raises(ExportError, match="can't download"):
        _planned(places, "pretrained")


def test_checkpoints_are_told_apart_by_their_bytes(places: Places, tmp_path: Path) -> None:
    """A checkpoint whose bytes changed makes the model again, although its name is the same."""
    file = tmp_path / "yolo11n.pt"
    file.write_bytes(b"first")
    (task,) = Planner(places, str(tmp_path)).tasks([BRANCH])
    assert task.weights is not None
    write_atomic(places.optimized("yolo11", BRANCH.name), b"graph")
    manifest.publish(
        BRANCH.name,
        places.optimized("yolo11", BRANCH.name),
        places.repository,
        EXPORTER.provenance(task.weights),
    )
    assert _planned(places, str(tmp_path)) is None
    file.write_bytes(b"second")
    assert _planned(places, str(tmp_path)) == "checkpoint"


@pytest.mark.parametrize("there", [None, "random"])
def test_missing_packages_are_told(
    places: Places, monkeypatch: pytest.MonkeyPatch, there: manifest.WeightsKind | None
) -> None:
    """Run by a Python without torch, the error says which environment is meant."""
    lacking = replace(EXPORTER, packages={"torch": "surely-not-installed"})
    monkeypatch.setattr(plan, "EXPORTERS", {"detect": lacking})
    if there:
        _there(places, there)
    with pytest.raises(ExportError, match="needs the export environment"):
        _planned(places, "random")


def test_every_missing_checkpoint_is_named_once(places: Places, tmp_path: Path) -> None:
    """Asked for three variants of which one is there, the error lists the two files that were looked for."""
    (tmp_path / "yolo11n.pt").write_bytes(b"weights")
    wanted = plan.branches(CATALOGUE, "starter", ("n", "s", "x"))
    with pytest.raises(ExportError) as caught:
        Planner(places, str(tmp_path)).tasks(wanted)
    small, large = str(caught.value).splitlines()
    assert str(tmp_path / "yolo11s.pt") in small
    assert str(tmp_path / "yolo11x.pt") in large
