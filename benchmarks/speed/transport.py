"""One detect-shaped call on a real Triton: gRPC bytes and shared memory, FP32 and UINT8, in one run.

    python -m benchmarks.speed.transport [--repeats 60] [--json FILE]

The model does nothing (it answers one value in YOLO11's shape), so what is measured is the way there and back: a
decoded 640 x 640 frame is prepared in the lease, as FP32 planes or, for the twin, as pixels (its preprocess graph is
the real one); `[1, 84, 8400]` FP32 comes out. The embedded engine does the same in this process. Rounds are
interleaved; time is the median over all calls, CPU the client's own (user + system) a call. The same engines, leases,
messages and heap as in the service. The last row is the gateway at rest: its resident memory with a repository that
holds no model.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper

from app.deadline import Deadline
from app.engine.base import Engine
from app.engine.embedded.engine import EmbeddedEngine, EmbeddedOptions
from app.engine.triton.engine import TritonEngine, TritonOptions
from app.engine.weights import WeightsBook
from app.media.fit import letterbox_into, letterbox_pixels_into
from app.process import malloc
from app.vision.letterbox import Letterbox
from benchmarks import ROOT
from deploy.local.triton_server import TritonServer, free_ports
from export import preprocess, repository
from export.graphs import value_info
from routing import catalogue as catalogues
from routing.catalogue import Branch

CATALOGUE = catalogues.load()
FP32, UINT8 = (CATALOGUE.branches[name] for name in CATALOGUE.branches["yolo11n_640"].same_weights)
TRANSPORTS = ("bytes", "shared_memory")
WAYS = {
    f"{transport} {name}": (transport, branch)
    for transport in (*TRANSPORTS, "inprocess")
    for name, branch in (("fp32", FP32), ("uint8", UINT8))
}
RATIOS = {  # what each way takes of another's
    "shared_memory / bytes": ("shared_memory fp32", "bytes fp32"),
    "bytes, uint8 / fp32": ("bytes uint8", "bytes fp32"),
    "shared_memory, uint8 / fp32": ("shared_memory uint8", "shared_memory fp32"),
    "inprocess, uint8 / fp32": ("inprocess uint8", "inprocess fp32"),
}


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=60, help="calls a transport")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    malloc.keep_pages()  # as the service does
    with tempfile.TemporaryDirectory() as folder:
        models = null_repository(Path(folder) / "models")
        with TritonServer(models, Path(folder) / "triton.log") as server, engines(server, models) as ways:
            figures = compare(ways, options.repeats)
        figures["idle_gateway_rss_mb"] = idle_rss(Path(folder) / "empty")
    figures["environment"] = {
        "cpu_count": psutil.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "grpcio", "tritonclient", "onnxruntime")},
    }
    report(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def null_repository(root: Path) -> Path:
    """The contract over a graph that computes next to nothing: the mean of the frame's corner, tiled."""
    names = {model.name for model in UINT8.models}
    repository.write_configs({k: v for k, v in repository.configs(CATALOGUE).items() if k in names}, root)
    _, before, spec = UINT8.models
    prepare = CATALOGUE["detect"].prepare
    assert prepare is not None
    (root / before.name / "1").mkdir()
    (root / before.name / "1" / "model.onnx").write_bytes(preprocess.build(before, prepare))
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], spec.outputs[0].shape)
    nodes = [
        helper.make_node("Slice", ["images", "zeros", "ones", "axes"], ["corner"]),
        helper.make_node("ReduceMean", ["corner"], ["mean"], keepdims=0),
        helper.make_node("Expand", ["mean", "shape"], ["output0"]),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [2], values)
        for name, values in (("zeros", [0, 0]), ("ones", [1, 1]), ("axes", [2, 3]))
    ]
    graph = helper.make_graph(
        nodes,
        "null",
        [value_info(t) for t in spec.inputs],
        [value_info(t) for t in spec.outputs],
        [shape, *constants],
    )
    folder = root / spec.name / "1"
    folder.mkdir(parents=True)
    (folder / "labels.txt").write_text("\n".join(CATALOGUE["detect"].labels) + "\n")
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        folder / "model.onnx",
    )
    return root


@contextmanager
def engines(server: TritonServer, models: Path) -> Iterator[dict[str, Engine]]:
    """One engine a transport: two on the same server, and one without any."""
    book = WeightsBook(models, None)
    embedded = EmbeddedEngine(CATALOGUE, models, book, EmbeddedOptions(threads=1))
    embedded.loaded.wait(60)
    ways: dict[str, Engine] = {
        name: TritonEngine(CATALOGUE, server.grpc_url, book, TritonOptions(transport=name))  # type: ignore[arg-type]  # a literal
        for name in TRANSPORTS
    }
    try:
        yield {**ways, "inprocess": embedded}
    finally:
        for engine in (*ways.values(), embedded):
            engine.close()


def compare(ways: dict[str, Engine], repeats: int) -> dict[str, Any]:
    """Interleaved calls; medians in ms and their ratios."""
    frame = np.random.default_rng(0).integers(0, 256, (640, 640, 3), dtype=np.uint8)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    cpu: dict[str, list[float]] = {name: [] for name in WAYS}
    for round_number in range(repeats + 10):
        for name in WAYS if round_number % 2 else reversed(WAYS):
            transport, branch = WAYS[name]
            wall, used = call(ways[transport], branch, frame, transport)
            if round_number >= 10:  # warm
                seconds[name].append(wall)
                cpu[name].append(used)
    rows = {
        name: {
            "call_ms_p50": 1000 * statistics.median(seconds[name]),
            "client_cpu_ms_mean": 1000 * statistics.fmean(cpu[name]),
        }
        for name in WAYS
    }
    ratios = {
        name: {key: rows[one][key] / rows[other][key] for key in rows[one]}
        for name, (one, other) in RATIOS.items()
    }
    return {"ways": rows, "ratios": ratios, "repeats": repeats}


def call(engine: Engine, branch: Branch, frame: np.ndarray, transport: str) -> tuple[float, float]:
    """Prepare the input, run, read one value of the output: wall and CPU seconds of this process."""
    deadline = Deadline.after(30)
    geometry = Letterbox.fit(640, 640, 640)
    place = letterbox_into if branch is FP32 else letterbox_pixels_into
    cpu, wall = time.process_time(), time.perf_counter()
    with engine.lease(branch, deadline) as lease:
        place(frame, geometry, lease.inputs[branch.inputs[0].name], lease.workspace)
        lease.run(deadline)
        value = float(lease.outputs["output0"][0, 0, -1])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert lease.transport == transport, lease.transport
    assert abs(value - float(frame[0, 0].mean()) / 255) < 1e-5, "the answer isn't this frame's"
    return wall, cpu


def idle_rss(empty: Path) -> float:
    """Resident memory in MB of a gateway that serves nothing, ten seconds after its start."""
    (empty / "models").mkdir(parents=True)
    port = free_ports(1)[0]
    command = [
        sys.executable,
        "-m",
        "app.cli",
        "serve",
        "--port",
        str(port),
        "--repository",
        str(empty / "models"),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(10)
        return float(psutil.Process(process.pid).memory_info().rss / 1e6)
    finally:
        process.terminate()
        process.wait(30)


def report(figures: dict[str, Any]) -> None:
    print(f"{'detect 640, no model':30}{'call p50 ms':>12}{'client CPU ms':>15}")
    for name, row in figures["ways"].items():
        print(f"{name:30}{row['call_ms_p50']:12.2f}{row['client_cpu_ms_mean']:15.2f}")
    for name, row in figures["ratios"].items():
        print(f"{name:30}{row['call_ms_p50']:12.3f}{row['client_cpu_ms_mean']:15.3f}")
    print(f"idle gateway without models: {figures['idle_gateway_rss_mb']:.0f} MB resident")


if __name__ == "__main__":
    main()
