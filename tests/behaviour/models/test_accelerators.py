"""Accelerators from a user's catalogue to config.pbtxt, and to a real Triton that loads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support.models import repository as test_repository
from support.paths import ROOT
from support.servers.gateway import client

from app.cli import main
from app.engine.triton.client import accelerator_of
from deploy.local.triton_server import TritonServer
from export.__main__ import main as export

pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")
PICTURE = (ROOT / "docs" / "astronaut.jpg").read_bytes()
CATALOGUE = """\
[[accelerate]]
branches = ["yolo11n_320"]
accelerator = { name = "tensorrt", precision = "fp16", cache = "/var/cache/tensorrt" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository of one detector and a catalogue that accelerates it."""
    test_repository.build(tmp_path / "models", ["yolo11n_320"])
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue/gpu.toml").write_text(CATALOGUE)
    return tmp_path


def _configure(folder: Path) -> int:
    return main(
        [
            "models",
            "configs",
            "--repository",
            str(folder / "models"),
            "--catalogue",
            str(folder / "catalogue"),
        ]
    )


def test_configurations_are_written_for_the_models_that_are_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what changed is written, and a second run writes nothing."""
    assert _configure(folder) == 0
    assert "config.pbtxt written: yolo11n_320\n" in capsys.readouterr().out
    assert 'name: "tensorrt"' in (folder / "models/yolo11n_320/config.pbtxt").read_text()
    assert _configure(folder) == 0
    assert "config.pbtxt written: none\n" in capsys.readouterr().out


def test_a_catalogue_that_is_wrong_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and the line."""
    before = (folder / "models/yolo11n_320/config.pbtxt").read_bytes()
    (folder / "catalogue/gpu.toml").write_text(CATALOGUE.replace("tensorrt", "tensorflow"))
    assert _configure(folder) == 2
    assert "gpu.toml:3: accelerate: accelerator: name is one of" in capsys.readouterr().err
    assert (folder / "models/yolo11n_320/config.pbtxt").read_bytes() == before


def test_make_repository_writes_them_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` names the file that differs, and writing again without the catalogue takes the accelerator away."""
    where = ["--repository", str(folder / "models"), "--models", str(folder / "built")]
    own = ["--catalogue", str(folder / "catalogue")]
    assert export(["repository", "--check", *where, *own]) == 1
    assert "yolo11n_320/config.pbtxt" in capsys.readouterr().out
    assert export(["repository", *where, *own]) == 0
    assert export(["repository", "--check", *where, *own]) == 0
    assert export(["repository", *where]) == 0
    assert "tensorrt" not in (folder / "models/yolo11n_320/config.pbtxt").read_text()
    assert export(["repository", *where, "--catalogue", str(folder / "nowhere")]) == 1
    assert "there is no such file or folder" in capsys.readouterr().err


def test_a_triton_without_a_gpu_serves_the_branch_as_before(folder: Path) -> None:
    """The server reads the block and has no GPU to apply it to; answers don't claim TensorRT."""
    assert _configure(folder) == 0
    with (
        TritonServer(folder / "models", folder / "triton.log", ["yolo11n_320"]) as server,
        client(engine="triton", triton_url=server.grpc_url, repository=folder / "models") as http,
    ):
        (used,) = _models_used(http)
    assert (used["engine"], used["precision"], used["device"]) == ("onnx", "fp32", "cpu")


def _models_used(http: TestClient) -> list[dict[str, object]]:
    answer = http.post("/v1/detect?branch=yolo11n_320", content=PICTURE)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, object]] = json.loads(answer.text)["models_used"]
    return found


@pytest.mark.parametrize(
    ("device", "expected"), [("cuda:1", ("tensorrt", "fp16")), ("cpu", None), ("unknown", None)]
)
def test_the_accelerator_of_the_device_is_reported(device: str, expected: tuple[str, str] | None) -> None:
    """A GPU's accelerator counts only where the model runs on a GPU."""
    accelerators = pb.ModelOptimizationPolicy.ExecutionAccelerators()
    accelerators.gpu_execution_accelerator.add(name="cuda")
    accelerators.gpu_execution_accelerator.add(name="tensorrt", parameters={"precision_mode": "FP16"})
    assert accelerator_of(accelerators, device) == expected


def test_openvino_is_reported_on_a_processor() -> None:
    """It computes in the precision of the graph."""
    accelerators = pb.ModelOptimizationPolicy.ExecutionAccelerators()
    accelerators.cpu_execution_accelerator.add(name="openvino")
    assert accelerator_of(accelerators, "cpu") == ("openvino", "fp32")
    assert accelerator_of(accelerators, "cuda:0") is None
