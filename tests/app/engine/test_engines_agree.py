"""The same input gives the same numbers whatever way it takes, in every family."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.models import repository as test_repository
from support.models.engines import triton_engine
from support.models.repository import CATALOGUE, DEPTH, DETECTORS, OTHERS
from support.servers.gateway import client, png, scene
from support.waiting import PATIENCE_S

from app.deadline import Deadline
from app.engine.base import Engine
from app.engine.embedded.engine import EmbeddedEngine, EmbeddedOptions
from app.engine.weights import WeightsBook
from deploy.local.triton_server import TritonServer

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def server(all_families: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A real Triton with a branch of every family."""
    with TritonServer(all_families, tmp_path_factory.mktemp("triton") / "triton.log") as running:
        yield running


@pytest.fixture(scope="module")
def engines(all_families: Path, server: TritonServer) -> Iterator[dict[str, Engine]]:
    """Three ways to the same models."""
    book = WeightsBook(all_families, None)
    embedded = EmbeddedEngine(CATALOGUE, all_families, book, EmbeddedOptions(threads=1))
    assert embedded.loaded.wait(PATIENCE_S)
    ways: dict[str, Engine] = {
        "embedded": embedded,
        "shared_memory": triton_engine(server.grpc_url, book, transport="shared_memory"),
        "bytes": triton_engine(server.grpc_url, book, transport="bytes"),
    }
    yield ways
    for engine in ways.values():
        engine.close()


@pytest.mark.parametrize("name", [*DETECTORS, *DEPTH, *OTHERS])
def test_tensors_are_equal_to_the_bit(engines: dict[str, Engine], name: str) -> None:
    """Shared memory, bytes and the embedded engine answer identical bits, for models and for ensembles."""
    branch = CATALOGUE.branches[name]
    rng = np.random.default_rng(7)
    data = {
        spec.name: rng.random(spec.shape, np.float32)
        if spec.datatype == "FP32"
        else rng.integers(0, 49408 if spec.datatype == "INT64" else 256, spec.shape)
        for spec in branch.inputs
    }
    answers = {}
    for way, engine in engines.items():
        with engine.lease(branch, Deadline.after(PATIENCE_S)) as lease:
            for tensor, values in data.items():
                lease.inputs[tensor][...] = values
            lease.run(Deadline.after(PATIENCE_S))
            answers[way] = lease.outputs[branch.outputs[0].name].tobytes()
            assert np.ptp(lease.outputs[branch.outputs[0].name]) > 0
    assert answers["shared_memory"] == answers["bytes"]
    assert answers["shared_memory"] == answers["embedded"]


def test_a_picture_has_the_same_boxes_on_both_engines(all_families: Path, server: TritonServer) -> None:
    """Over HTTP: boxes, scores and digests are equal, and each answer says which runtime made it."""
    body = png(scene(1280, 640, (0, 128, 64, 64), (2, 640, 256, 128)))
    with (
        client(all_families) as embedded,
        client(all_families, engine="triton", triton_url=server.grpc_url) as triton,
    ):
        one, other = (c.post("/v1/detect", content=body).json() for c in (embedded, triton))
    assert one["detections"]
    assert one["detections"] == other["detections"]
    assert one["models_used"][0] | {"runtime": "triton"} == other["models_used"][0]
    assert one["models_used"][0]["runtime"] == "inprocess"
    assert one["model_signature"] != other["model_signature"]


def test_the_whole_checklist_turns_ready(tmp_path: Path) -> None:
    """Every required model of the READY checklist is READY in a real Triton, with the committed configurations."""
    required = [branch.name for branch in CATALOGUE.branches.values() if branch.required]
    models = test_repository.build(tmp_path / "models", required)
    with TritonServer(models, tmp_path / "triton.log") as server:
        settings = {"engine": "triton", "triton_url": server.grpc_url, "require_ready": "checklist"}
        with client(models, **settings) as gateway:
            document = gateway.get("/v1/repository").json()
    assert document["checklist_ready"], document["missing"]
    assert {row["name"] for row in document["required"]} == set(
        CATALOGUE.ready_checklist(required=True, variant="x")
    )
