"""A detector's twin takes pixels where the detector takes FP32: the same weights and bits on every engine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.models import exhausted
from support.models import repository as test_repository
from support.models.engines import recover_now, triton_engine
from support.models.exhausted import Memory
from support.models.repository import CATALOGUE
from support.paths import ROOT
from support.waiting import PATIENCE_S, eventually

from app.deadline import Deadline
from app.engine.base import Engine
from app.engine.embedded.engine import EmbeddedEngine, EmbeddedOptions
from app.engine.weights import WeightsBook
from app.errors import InsufficientGpuMemory
from app.media.fit import letterbox_into, letterbox_pixels_into
from app.vision.letterbox import Letterbox
from deploy.local.triton_server import TritonServer
from routing.catalogue import Branch
from routing.policy import Readiness

NAMES = ("yolo11n_320", "yolo11n_640")
BRANCHES = [CATALOGUE.branches[name] for name in NAMES]
SMALL = BRANCHES[0]
KINDS = (
    "embedded",
    pytest.param("shared_memory", marks=pytest.mark.triton),
    pytest.param("bytes", marks=pytest.mark.triton),
)
PICTURE = cv2.cvtColor(cv2.imread(str(ROOT / "docs" / "astronaut.jpg")), cv2.COLOR_BGR2RGB)


def twin_of(branch: Branch) -> Branch:
    assert branch.compact is not None
    return branch.compact


TWIN = twin_of(SMALL)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two detectors and their twins."""
    both = [name for branch in BRANCHES for name in branch.same_weights]
    return test_repository.build(tmp_path_factory.mktemp("models"), both)


@pytest.fixture(scope="module")
def triton(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with TritonServer(models, tmp_path_factory.mktemp("triton") / "triton.log") as server:
        yield server


@pytest.fixture
def engine(request: pytest.FixtureRequest, models: Path) -> Iterator[Engine]:
    """Engine of the kind that the test is parametrised with."""
    book = WeightsBook(models, None)
    made: Engine
    if request.param == "embedded":
        made = EmbeddedEngine(CATALOGUE, models, book, EmbeddedOptions(threads=1))
        assert made.loaded.wait(PATIENCE_S)
    else:
        server: TritonServer = request.getfixturevalue("triton")
        made = triton_engine(server.grpc_url, book, known=True, transport=request.param)
    yield made
    made.close()


def answer(engine: Engine, branch: Branch, rgb: np.ndarray) -> bytes:
    """The output's bits for a frame that is letterboxed straight into the lease."""
    geometry = Letterbox.fit(rgb.shape[1], rgb.shape[0], branch.size or 0)
    place = letterbox_into if branch.twin_of is None else letterbox_pixels_into
    with engine.lease(branch, Deadline.after(PATIENCE_S)) as lease:
        place(rgb, geometry, lease.inputs[branch.inputs[0].name], lease.workspace)
        lease.run(Deadline.after(PATIENCE_S))
        return lease.outputs[branch.outputs[0].name].tobytes()


@pytest.mark.parametrize("engine", KINDS, indirect=True)
def test_a_twin_answers_its_branch_s_bits(engine: Engine) -> None:
    """Frames of several shapes one after another in the same tensors, larger and smaller than the square."""
    for branch in BRANCHES:
        for height, width in ((512, 512), (300, 512), (512, 200), (100, 120), (300, 512)):
            rgb = np.ascontiguousarray(PICTURE[:height, :width])
            bits = answer(engine, twin_of(branch), rgb)
            assert bits == answer(engine, branch, rgb)
            assert np.ptp(np.frombuffer(bits, np.float32)) > 0


@pytest.mark.triton
@pytest.mark.parametrize("engine", KINDS[1:], indirect=True)
def test_a_real_triton_makes_the_very_tensor_that_the_gateway_would_send(engine: Engine) -> None:
    """All 256 levels and a picture through the preprocess graph alone: the bits of `letterbox_into`."""
    graph = TWIN.models[1]
    alone = replace(TWIN, name=graph.name, outputs=graph.outputs, models=(graph,), twin_of=None)
    levels = np.resize(np.arange(256, dtype=np.uint8).repeat(3), (320, 320, 3))
    for rgb in (levels, PICTURE):
        geometry, images = (
            Letterbox.fit(rgb.shape[1], rgb.shape[0], 320),
            np.empty((1, 3, 320, 320), np.float32),
        )
        letterbox_into(rgb, geometry, images, {})
        with engine.lease(alone, Deadline.after(PATIENCE_S)) as lease:
            letterbox_pixels_into(rgb, geometry, lease.inputs["INPUT__0"], lease.workspace)
            lease.run(Deadline.after(PATIENCE_S))
            assert lease.outputs["OUTPUT__0"].tobytes() == images.tobytes()


@pytest.mark.parametrize("engine", KINDS, indirect=True)
def test_a_twin_says_whose_weights_it_has(engine: Engine) -> None:
    """The same digest as its branch, and that of the graph before them."""
    own, twin = (engine.ready()[branch.name] for branch in (SMALL, TWIN))
    assert own.ready
    assert twin.ready
    assert own.weights.digest.startswith("sha256:")
    assert twin.weights == own.weights
    assert (own.preprocess_digest, twin.preprocess_digest) == (
        None,
        engine.ready()["preprocess_yolo11_320"].weights.digest,
    )


@pytest.mark.parametrize("name", ["embedded", "bytes", "shared_memory"])
def test_an_engine_tells_how_tensors_travel(request: pytest.FixtureRequest, models: Path, name: str) -> None:
    """Routing asks it."""
    if name == "embedded":
        assert EmbeddedEngine.transport == "inprocess"
        return
    server: TritonServer = request.getfixturevalue("triton")
    engine = triton_engine(server.grpc_url, transport=name)
    assert engine.transport == name
    engine.close()


def embedded(models: Path, **options: float) -> EmbeddedEngine:
    made = EmbeddedEngine(CATALOGUE, models, WeightsBook(models, None), EmbeddedOptions(threads=1, **options))  # type: ignore[arg-type]  # numbers
    assert made.loaded.wait(PATIENCE_S)
    return made


def test_weights_are_in_memory_once(models: Path) -> None:
    """A branch and its twin run on one session, and twins of other weights share their graph."""
    engine = embedded(models)
    assert sorted(engine._sessions._loaded) == [
        *(f"preprocess_yolo11_{size}" for size in (320, 640)),
        *NAMES,
    ]
    engine.close()


def test_a_twin_that_cannot_be_loaded_takes_nobody_with_it(models: Path, tmp_path: Path) -> None:
    """A damaged graph: the branch serves on and says so, also when the files have changed and are looked at again."""
    root = Path(shutil.copytree(models, tmp_path / "models"))
    graph = root / "preprocess_yolo11_320" / "1" / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(b"half a gra")
    engine = embedded(root, rescan_s=0.05)
    try:
        assert not engine.ready()[TWIN.name].ready
        assert engine.ready()[SMALL.name].ready
        assert answer(engine, SMALL, PICTURE)
        graph.write_bytes(whole)
        eventually(lambda: engine.ready()[TWIN.name].ready)
        assert answer(engine, TWIN, PICTURE) == answer(engine, SMALL, PICTURE)
        graph.unlink()
        eventually(lambda: engine.ready()[TWIN.name].readiness is Readiness.WEIGHTS_MISSING)
        assert engine.ready()[SMALL.name].ready
        (root / SMALL.name / "1" / "model.onnx").unlink()
        eventually(lambda: engine.ready()[SMALL.name].readiness is Readiness.WEIGHTS_MISSING)
        assert SMALL.name not in engine._sessions._loaded
    finally:
        engine.close()


@pytest.mark.triton
@pytest.mark.parametrize("first", [SMALL, TWIN], ids=["branch", "twin"])
def test_memory_that_runs_out_takes_both_out_and_both_come_back(tmp_path: Path, first: Branch) -> None:
    """They have one model: whichever fails, the other is out as well, and one reload recovers both."""
    root = test_repository.build(
        tmp_path / "models", [*SMALL.same_weights, "yolo11s_320", "yolo11s_320_uint8"]
    )
    memory = Memory(root, SMALL.weights_model)
    with TritonServer(root, tmp_path / "triton.log") as server:
        engine = triton_engine(
            server.grpc_url,
            WeightsBook(root, None),
            transport="bytes",
            poll_interval_s=0.05,
            warmup_s=PATIENCE_S,
            reload_pause_s=3600.0,
            reload_longest_s=3600.0,
        )
        try:
            both = (SMALL, TWIN)
            eventually(lambda: all(engine.ready()[one.name].ready for one in both))
            right = answer(engine, SMALL, PICTURE)
            memory.runs_out(exhausted.CUDA)
            for branch in (first, *both):
                with pytest.raises(InsufficientGpuMemory):
                    answer(engine, branch, PICTURE)
                assert {engine.ready()[one.name].readiness for one in both} == {Readiness.OUT_OF_MEMORY}
            assert engine.usage().quarantined == {SMALL.name, TWIN.name}
            recover_now(engine)
            eventually(lambda: all(engine.ready()[one.name].ready for one in both))
            assert answer(engine, TWIN, PICTURE) == answer(engine, SMALL, PICTURE) == right
            assert engine.usage().out_of_memory == {first.name: 1}
            eventually(lambda: engine.ready()["yolo11s_320_uint8"].ready)
            loads = (tmp_path / "triton.log").read_text().count
            assert loads(f"successfully loaded '{SMALL.name}'") == 2
            assert loads("successfully loaded 'yolo11s_320'") == 1
        finally:
            engine.close()
