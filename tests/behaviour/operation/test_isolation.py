"""One odd model beside healthy ones on a real Triton: boxes go on, right and under the right digest."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient
from support.models import repository as test_repository
from support.models.shaped import Shaped
from support.models.timed import Timed
from support.servers.gateway import client, png, scene
from support.waiting import eventually
from support.witness import STEADY, Witness, digest_of, put_graph, put_note

from app.engine import weights_files
from deploy.local.triton_server import TritonServer

pytestmark = pytest.mark.triton
ODD, SQUARE = "yolo11n_640", 256
DEPTH, CHILD = "midas_256", "midas_256_onnx"


@dataclass(frozen=True)
class Stage:
    """A Triton with explicit control, a gateway over it, and a witness who asks for boxes."""

    models: Path
    triton: TritonServer
    gateway: TestClient
    witness: Witness
    lines: list[logging.LogRecord]

    def control(self, name: str, what: str) -> None:
        """Load or unload a model; returns once that is done."""
        url = f"{self.triton.http_url}/v2/repository/models/{name}/{what}"
        assert httpx2.post(url, json={}, timeout=120).status_code == 200

    def row(self, name: str) -> dict[str, Any]:
        """One branch in `GET /v1/branches`."""
        families = self.gateway.get("/v1/branches").json()["families"]
        rows = {row["name"]: row for family in families for row in family["branches"]}
        found: dict[str, Any] = rows[name]
        return found

    def becomes(self, name: str, readiness: str) -> str:
        """Wait until the branch is that; its reason."""
        eventually(lambda: self.row(name)["readiness"] == readiness)
        return str(self.row(name)["reason"])

    def healthy(self, refusals: float = 0.0) -> None:
        """Nothing wrong, false, or red; at most that share refused; under a log line per second."""
        began, before = time.monotonic(), len(self.lines)
        self.witness.more(40)
        spent = time.monotonic() - began
        assert self.witness.wrong == self.witness.false == []
        assert self.witness.red == 0
        assert self.witness.refused.total() <= refusals * self.witness.answers
        assert len(self.lines) - before <= max(2.0, spent), [r.getMessage() for r in self.lines[before:]]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return test_repository.build(tmp_path / "models", [STEADY, ODD, DEPTH])


Start = Callable[..., Stage]


@pytest.fixture
def start(models: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts all parts of a stage."""
    with contextlib.ExitStack() as stack:

        def build(load: tuple[str, ...] = (STEADY,), **settings: Any) -> Stage:
            put_graph(models, 0)
            put_note(models, 0)
            triton = stack.enter_context(TritonServer(models, tmp_path / "triton.log", load=load))
            gateway = stack.enter_context(
                client(models, engine="triton", triton_url=triton.grpc_url, **settings)
            )
            lines: list[logging.LogRecord] = []
            keeper = logging.Handler()
            keeper.emit = lines.append  # type: ignore[method-assign]  # keeps records
            for name in ("app", "gateway"):
                logging.getLogger(name).addHandler(keeper)
                stack.callback(logging.getLogger(name).removeHandler, keeper)
            witness = stack.enter_context(
                Witness(gateway, {1: digest_of(models, 0), 2: digest_of(models, 1)})
            )
            return Stage(models, triton, gateway, witness, lines)

        yield build


def rename(models: Path, old: str, new: str, ensemble: str) -> None:
    """Give a part of an ensemble another name."""
    (models / old).rename(models / new)
    for model in (new, ensemble):
        config = models / model / "config.pbtxt"
        config.write_text(config.read_text().replace(f'"{old}"', f'"{new}"'))


def depth(stage: Stage) -> dict[str, Any]:
    """Return the model in an answer of the depth branch."""
    answer = stage.gateway.post(f"/v1/depth?branch={DEPTH}", content=png(scene(320, 320)))
    assert answer.status_code == 200, answer.text
    used: dict[str, Any] = answer.json()["models_used"][0]
    return used


def test_one_model_in_place_of_an_ensemble_is_served(models: Path, start: Start) -> None:
    """Such a model has no parts; its weights aren't those of the catalogue, so they are unknown."""
    fused = Shaped(models, DEPTH)
    fused.answers(("OUTPUT__0", "float32", [1, SQUARE, SQUARE], 0.5))
    stage = start()
    stage.control(DEPTH, "load")
    stage.becomes(DEPTH, "ready")
    assert depth(stage)["weights_digest"] == "unknown"
    assert "preprocess_digest" not in depth(stage)
    stage.healthy()


def test_a_part_with_another_name_is_served(models: Path, start: Start) -> None:
    """The parts are those of the ensemble's own scheduling; unknown weights, known preprocessing, known device."""
    rename(models, CHILD, "midas_256_trt", DEPTH)
    stage = start()
    stage.control(DEPTH, "load")
    stage.becomes(DEPTH, "ready")
    used = depth(stage)
    assert (used["weights_digest"], used["device"]) == ("unknown", "cpu")
    assert used["preprocess_digest"].startswith("sha256:")
    stage.healthy()


def test_a_chain_of_three_parts_is_served(models: Path, start: Start) -> None:
    """Another step behind the weights: the digest is that of the catalogue's model, which is one of the parts."""
    config = models / DEPTH / "config.pbtxt"
    text = config.read_text().replace('value: "OUTPUT__0" }\n  }\n}', 'value: "raw" }\n  }\n}')
    step = (
        '  step {\n    model_name: "smooth"\n    model_version: -1\n'
        '    input_map { key: "INPUT__0" value: "raw" }\n    output_map { key: "OUTPUT__0" value: "OUTPUT__0" }\n  }\n'
    )
    config.write_text(re.sub(r"\}\n$", step + "}\n", text))
    (models / "smooth" / "1").mkdir(parents=True)
    tensor = f"data_type: TYPE_FP32 dims: [ 1, {SQUARE}, {SQUARE} ]"
    (models / "smooth" / "config.pbtxt").write_text(
        'name: "smooth" backend: "python" max_batch_size: 0\n'
        f'input {{ name: "INPUT__0" {tensor} }} output {{ name: "OUTPUT__0" {tensor} }}\n'
        "instance_group { kind: KIND_CPU count: 1 }\n"
    )
    Shaped(models, "smooth").answers(("OUTPUT__0", "float32", [1, SQUARE, SQUARE], 0.5))
    stage = start()
    stage.control(DEPTH, "load")
    stage.becomes(DEPTH, "ready")
    eventually(lambda: depth(stage)["weights_digest"] != "unknown")
    stage.healthy()


def test_an_ensemble_whose_part_is_unloaded_is_not_ready(start: Start) -> None:
    """The ensemble isn't ready until it is loaded again, and says why."""
    stage = start(load=(STEADY, DEPTH))
    stage.becomes(DEPTH, "ready")
    stage.control(CHILD, "unload")
    assert stage.becomes(DEPTH, "unavailable") not in ("", "None")
    stage.healthy()
    stage.control(DEPTH, "load")
    stage.becomes(DEPTH, "ready")


def test_another_contract_is_told_in_a_sentence(models: Path, start: Start) -> None:
    """The reason names both sides, in no language's own notation."""
    config = models / ODD / "config.pbtxt"
    Shaped(models, ODD)
    config.write_text(config.read_text().replace('"output0"', '"output1"'))
    stage = start()
    stage.control(ODD, "load")
    reason = stage.becomes(ODD, "contract_mismatch")
    assert reason == ("Triton has output1 FP32 [1, 84, 8400]; the catalogue says output0 FP32 [1, 84, 8400]")
    stage.healthy()


def test_a_slow_load_and_a_hanging_run_cost_no_answer(models: Path, start: Start) -> None:
    """While another model loads, and while its first run hangs."""
    timed = Timed(models, ODD)
    stage = start()
    with timed.held("run"):
        with timed.held("load"):
            loading = threading.Thread(target=stage.control, args=(ODD, "load"))
            loading.start()
            stage.becomes(ODD, "loading")
            stage.healthy()
        loading.join()
        stage.healthy()
    stage.becomes(ODD, "ready")
    stage.healthy()


def test_loading_and_unloading_another_model_costs_no_answer(start: Start) -> None:
    """Ten times under traffic: at least 99 of 100 requests are answered."""
    stage = start()
    for _ in range(10):
        stage.control(ODD, "load")
        stage.control(ODD, "unload")
    stage.healthy()


def test_loading_the_served_model_again_and_again_is_one_server(start: Start) -> None:
    """Five reloads in a row without a pause are no second server; nothing false is said meanwhile."""
    stage = start()
    for _ in range(5):
        stage.control(STEADY, "load")
    stage.healthy(refusals=0.01)
    eventually(lambda: any(digest != "unknown" for _, _, digest in stage.witness.seen))
    assert "several_servers" not in str(stage.witness.refused)


@pytest.mark.parametrize("order", ["graph, reload, note", "graph, note, reload", "note, graph, reload"])
def test_replaced_files_never_give_their_digest_to_other_weights(
    models: Path, start: Start, order: str
) -> None:
    """Four swaps under traffic, in any order of files: no false digest, and one signature for each."""
    stage = start()
    stage.witness.more()
    for shift in (1, 0, 1, 0):
        for step in order.split(", "):
            if step == "graph":
                put_graph(models, shift)
            elif step == "note":
                put_note(models, shift)
            else:
                stage.control(STEADY, "load")
            stage.witness.more(10)
        digest = digest_of(models, shift)
        eventually(lambda digest=digest: stage.row(STEADY)["weights_digest"] == digest)  # type: ignore[misc]  # bound now
    stage.healthy(refusals=0.01)
    assert {len(found) for found in stage.witness.signatures.values()} == {1}


@pytest.mark.parametrize("what", ["a FIFO", "a read that hangs"])
def test_a_blocked_file_costs_no_answer(
    models: Path, start: Start, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model's digest is unknown, polls and boxes go on."""
    stage = start(load=(STEADY, DEPTH))
    stage.becomes(DEPTH, "ready")
    eventually(lambda: stage.row(DEPTH)["weights_digest"] != "unknown")
    hangs, real = threading.Event(), weights_files._stamp
    if what == "a FIFO":
        note = models / CHILD / "1" / "weights.json"
        note.unlink()
        os.mkfifo(note)
    else:
        monkeypatch.setattr(
            weights_files,
            "_stamp",
            lambda folder: hangs.wait() and real(folder) if folder.parent.name == CHILD else real(folder),
        )
    eventually(lambda: stage.row(DEPTH)["weights_digest"] == "unknown")
    stage.healthy()
    stage.control(ODD, "load")
    stage.becomes(ODD, "ready")
    hangs.set()
