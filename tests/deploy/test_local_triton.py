"""The launcher of a real Triton: what it loads, and that nothing outlives it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
import tritonclient.grpc as grpcclient
from onnx import TensorProto, helper
from support.paths import ROOT
from support.waiting import PATIENCE_S

from deploy.local.triton_server import LAUNCHER, TritonServer, free_ports

pytestmark = pytest.mark.triton
SHM = Path("/dev/shm")

_CONFIG = """name: "{name}"
backend: "onnxruntime"
max_batch_size: 0
input {{ name: "x" data_type: {in_type} dims: [ {in_dims} ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ {out_dims} ] }}
instance_group {{ kind: KIND_AUTO count: 1 }}
"""
_ENSEMBLE = """name: "whole"
platform: "ensemble"
max_batch_size: 0
input { name: "x" data_type: TYPE_UINT8 dims: [ 1, 4, 4, 3 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1, 3, 1, 1 ] }
ensemble_scheduling {
  step { model_name: "planar" model_version: -1
    input_map { key: "x" value: "x" } output_map { key: "y" value: "middle" } }
  step { model_name: "mean" model_version: -1
    input_map { key: "x" value: "middle" } output_map { key: "y" value: "y" } }
}
"""


def _write(repository: Path, name: str, config: str, nodes: list[onnx.NodeProto] | None = None) -> None:
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    if nodes is None:
        return
    nhwc, nchw, mean = [1, 4, 4, 3], [1, 3, 4, 4], [1, 3, 1, 1]
    planar = nodes[0].op_type == "Cast"
    graph = helper.make_graph(
        nodes,
        name,
        [
            helper.make_tensor_value_info(
                "x", TensorProto.UINT8 if planar else TensorProto.FLOAT, nhwc if planar else nchw
            )
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, nchw if planar else mean)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "1" / "model.onnx")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    uint8 = {"in_type": "TYPE_UINT8", "in_dims": "1, 4, 4, 3", "out_dims": "1, 3, 4, 4"}
    fp32 = {"in_type": "TYPE_FP32", "in_dims": "1, 3, 4, 4", "out_dims": "1, 3, 1, 1"}
    cast = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["y"], perm=[0, 3, 1, 2]),
    ]
    mean = [helper.make_node("GlobalAveragePool", ["x"], ["y"])]
    _write(root, "planar", _CONFIG.format(name="planar", **uint8), cast)
    _write(root, "mean", _CONFIG.format(name="mean", **fp32), mean)
    _write(root, "whole", _ENSEMBLE)
    wrong = {**fp32, "out_dims": "1, 3, 2, 2"}
    _write(root, "broken", _CONFIG.format(name="broken", **wrong), mean)
    _write(root, "empty", _CONFIG.format(name="empty", **fp32))
    return root


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with TritonServer(repository, tmp_path_factory.mktemp("log") / "triton.log") as running:
        yield running


def test_an_ensemble_of_uint8_nhwc_answers_what_numpy_computes(server: TritonServer) -> None:
    """The repository's ensembles run on the real server with the Python-based backend."""
    picture = np.random.default_rng(0).integers(0, 255, (1, 4, 4, 3), dtype=np.uint8)
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        tensor = grpcclient.InferInput("x", [1, 4, 4, 3], "UINT8")
        tensor.set_data_from_numpy(picture)
        answer = client.infer("whole", [tensor]).as_numpy("y")
    np.testing.assert_allclose(answer[0, :, 0, 0], picture.mean(axis=(0, 1, 2)), rtol=1e-6)


def test_it_serves_from_folders_whose_paths_hold_spaces(repository: Path, tmp_path: Path) -> None:
    """The project and the model repository may lie in folders with spaces and other characters a shell acts on."""
    project = tmp_path / "a folder; with $(spaces)"
    shutil.copytree(LAUNCHER.parent, project / "deploy" / "local")
    (project / ".venv-triton").symlink_to(ROOT / ".venv-triton")
    shutil.copytree(repository, project / "my models")
    launcher = project / "deploy" / "local" / LAUNCHER.name
    with (
        TritonServer(project / "my models", tmp_path / "log", ["whole"], launcher=launcher) as server,
        grpcclient.InferenceServerClient(server.grpc_url) as client,
    ):
        assert client.is_model_ready("whole")
        # of this server, not of those that other tests run beside it
        links = [path for path in SHM.iterdir() if path.is_symlink() and tmp_path in path.readlink().parents]
    assert links
    assert not any(path.is_symlink() for path in links)


def test_a_broken_model_keeps_no_other_from_being_ready(server: TritonServer) -> None:
    """A model whose graph and configuration differ isn't READY and says why; the rest serves."""
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        index = {row.name: row for row in client.get_model_repository_index().models}
        assert client.is_model_ready("whole")
        assert not client.is_model_ready("broken")
    assert "config.pbtxt has" in index["broken"].reason


def test_a_model_without_files_is_named_and_skipped(server: TritonServer) -> None:
    """The operator reads which model lacks what."""
    assert "skipping empty: no 1/model.onnx" in server.log.read_text()


def test_nothing_outlives_a_launcher_that_is_killed(repository: Path, tmp_path: Path) -> None:
    """SIGKILL to the launcher ends server and stubs, and the next start removes what was left behind."""
    left = Path(tempfile.mkdtemp(prefix="python_env_", dir="/tmp"))  # as by the server of another one
    os.utime(left, (0, 0))
    first = TritonServer(repository, tmp_path / "first.log", load=["mean"])
    first.start()
    prefix = next(part for part in _command_line(first) if "shm-region-prefix-name" in part).split("=")[-1]
    below = first.kill_launcher()
    assert below
    _, alive = psutil.wait_procs(below, timeout=PATIENCE_S)
    assert alive == []
    with TritonServer(repository, tmp_path / "second.log", load=["mean"]):
        assert list(SHM.glob(f"{prefix}*")) == []
    assert not left.exists()


def test_a_stopped_server_leaves_no_shared_memory(repository: Path, tmp_path: Path) -> None:
    """After SIGTERM neither process nor region is left."""
    server = TritonServer(repository, tmp_path / "triton.log", load=["mean"])
    server.start()
    prefix = next(part for part in _command_line(server) if "shm-region-prefix-name" in part).split("=")[-1]
    family = server.processes()
    server.stop()
    assert [process for process in family if process.is_running()] == []
    assert list(SHM.glob(f"{prefix}*")) == []


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.15, 0.2])
def test_nothing_outlives_a_launcher_that_is_killed_while_models_load(repository: Path, delay: float) -> None:
    """A stub whose server dies before the model is ready may wait for ever; the guard ends it."""
    with _launcher(repository) as launcher:
        assert _below(launcher, "triton_python_b")
        time.sleep(delay)
        below = psutil.Process(launcher.pid).children(recursive=True)
        launcher.kill()
        launcher.wait()
        _, alive = psutil.wait_procs(below, timeout=PATIENCE_S)
    assert alive == []


def test_nothing_outlives_a_test_process_that_is_killed(repository: Path, tmp_path: Path) -> None:
    """The launcher that the helper starts ends with the process that started it, however that ends."""
    code = (
        "import sys, time; from pathlib import Path; from deploy.local.triton_server import TritonServer\n"
        "s = TritonServer(Path(sys.argv[1]), Path(sys.argv[2]), load=['mean']); s.start(); print('up', flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(repository), str(tmp_path / "triton.log")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"up\n"
            below = psutil.Process(holder.pid).children(recursive=True)
        finally:
            holder.kill()
    assert len(below) >= 3  # launcher, server, stub
    _, alive = psutil.wait_procs(below, timeout=PATIENCE_S)
    assert alive == []


_STUB = """
import subprocess, sys
from deploy.local.triton import guard

command = ["sh", "-c", "sleep 1000 & echo $!; wait"]
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)
with guard(server.pid, "triton-of-no-test"):
    print(server.pid, server.stdout.readline(), end="", flush=True)
    server.wait()
    print("gone", flush=True)
    sys.stdin.read()
"""


def test_a_stub_of_a_dead_server_is_reaped_by_the_launcher() -> None:
    """The stub becomes the launcher's child, which ends it without waiting until init reaps it."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", _STUB], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    with launcher:
        server, stub = map(int, launcher.stdout.readline().split())
        os.kill(server, signal.SIGKILL)
        assert launcher.stdout.readline() == "gone\n"
        assert psutil.Process(stub).ppid() == launcher.pid
        launcher.stdin.close()
    assert (launcher.returncode, psutil.pid_exists(stub)) == (0, False)


def test_a_launcher_whose_ports_are_taken_never_says_ready(server: TritonServer, repository: Path) -> None:
    """The server that answers on the ports is another one: its models aren't announced as ours."""
    urls = (server.http_url, server.grpc_url, server.metrics_url.removesuffix("/metrics"))
    ports = [url.rsplit(":", 1)[1] for url in urls]
    done = subprocess.run(
        [*_launch(repository, ports), "--load", "mean"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode not in (0, 2)
    assert "triton: ready" not in done.stdout


def test_proxies_are_for_others(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment doesn't keep the launcher from its own server."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with TritonServer(repository, tmp_path / "triton.log", load=["mean"]):
        pass


def test_onnx_runtime_reports_nothing(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's official builds keep an identifier and events in the home folder; the local Triton's don't."""
    for name in ("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "GITHUB_ACTIONS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    with TritonServer(repository, tmp_path / "triton.log", load=["mean"]):
        assert list(home.rglob("onnxruntime*")) == []


def test_a_part_of_an_ensemble_that_lacks_another_serves_by_itself(repository: Path, tmp_path: Path) -> None:
    """Skipping an ensemble skips nothing else; a model asked for and not there is named."""
    root = tmp_path / "repository"
    shutil.copytree(repository, root)
    (root / "mean" / "1" / "model.onnx").unlink()
    with TritonServer(root, tmp_path / "triton.log") as running:
        log = running.log.read_text()
    assert "skipping whole: no mean" in log
    assert "1 models READY: planar" in log
    with TritonServer(root, tmp_path / "triton.log", load=["planar", "nowhere"]) as running:
        assert "triton: NOT READY nowhere" in running.log.read_text()


def test_sigterm_while_models_load_ends_everything(repository: Path) -> None:
    """A stop that comes early is a stop: exit code 0, no process left."""
    with _launcher(repository) as launcher:
        below = _below(launcher, "tritonserver")
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(PATIENCE_S) == 0
    assert below
    assert [process for process in below if process.is_running()] == []


@contextlib.contextmanager
def _launcher(repository: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A launcher that is still loading; it ends with the block, and at the latest with this process."""
    command = [*_launch(repository), "--exit-with-stdin"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet) as launcher:
        try:
            yield launcher
        finally:
            launcher.kill()


def _launch(repository: Path, ports: list[str] | None = None) -> list[str]:
    http, grpc, metrics = ports or [str(port) for port in free_ports(3)]
    options = ["--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics]
    return [sys.executable, str(LAUNCHER), "--repository", str(repository), *options]


def _below(launcher: subprocess.Popen[bytes], name: str) -> list[psutil.Process]:
    """The processes of that name below the launcher, as soon as there are any."""
    limit = time.monotonic() + PATIENCE_S
    found: list[psutil.Process] = []
    while not found and time.monotonic() < limit:
        for process in psutil.Process(launcher.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith(name):
                    found.append(process)
        time.sleep(0.01)
    return found


def _command_line(server: TritonServer) -> list[str]:
    return [part for process in server.processes() for part in process.cmdline()]
