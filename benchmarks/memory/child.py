"""One process that serves branches on the embedded engine, and prints how much memory that took as JSON.

python -m benchmarks.memory.child triton/models yolo11n_320 midas_256
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime as ort

from app.deadline import Deadline
from app.engine.embedded.engine import EmbeddedEngine, EmbeddedOptions
from app.engine.weights import WeightsBook
from app.settings import Settings
from routing import overlay
from routing.policy import Readiness

RUNS = 3  # the first allocates tensor by tensor, the second a block for all, the third what these left
_PATIENCE_S = 600.0


def resident() -> int:
    """Resident memory of this process in bytes."""
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[1]) * (1 << 12)


def main(arguments: Sequence[str]) -> int:
    """Serve the branches, run each, and print the difference."""
    repository, *names = arguments
    catalogue = overlay.load(Settings(engine="embedded").own_catalogue)
    _warm_up()
    before = resident()
    options = EmbeddedOptions(leases=1, threads=1, branches=tuple(names))
    engine = EmbeddedEngine(catalogue, Path(repository), WeightsBook(Path(repository), None), options)
    deadline = Deadline.after(_PATIENCE_S)
    while any(engine.ready()[name].readiness is Readiness.LOADING for name in names) and deadline.remaining():
        time.sleep(0.05)
    loaded = resident()
    for name in names * RUNS:
        with engine.lease(catalogue.branches[name], deadline) as lease:
            lease.run(deadline)
    print(json.dumps({"loaded_bytes": loaded - before, "taken_bytes": resident() - before}))
    engine.close()
    return 0


def _warm_up() -> None:
    """Let ONNX Runtime load its code and start, which belongs to no branch."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1,))
    answer = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1,))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "nothing", [value], [answer]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
