"""Sizes of one architecture share one file of weights, hard-linked, named by its bytes, and counted in digests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from app.engine.weights import files_digest
from export import manifest, sharing
from export.artifacts import write_atomic
from export.manifest import Provenance, Source

PROVENANCE = Provenance("random", Source("seed 0"), {"opset": 17})


def _graph(shared: dict[str, float], constant: float) -> bytes:
    """Adds every shared parameter `[1024]`, and a constant of its own, to `x [1024]`."""
    values = {f"{sharing.PREFIX}{key}": np.full(1024, value, np.float32) for key, value in shared.items()}
    values["onnx::Add_1"] = np.full(1024, constant, np.float32)
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    node = helper.make_node("Sum", ["x", *values], ["y"])
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1024]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString(deterministic=True))


def _publish(root: Path, name: str, content: bytes) -> manifest.Record:
    graph, file, data = sharing.split(content)
    assert file is not None
    sharing.store(root / "optimized", file, data)
    optimized = root / "optimized" / f"{name}.onnx"
    write_atomic(optimized, graph)
    return manifest.publish(name, optimized, root / "repository", PROVENANCE, shared=[file])


def _shared(root: Path, name: str) -> Path:
    (path,) = (root / "repository" / name / "1").glob("shared-*.bin")
    return path


def test_sizes_share_one_file(tmp_path: Path) -> None:
    """Graphs that differ in constants and in the order of their parameters look into the same file, on disk once."""
    _publish(tmp_path, "small", _graph({"a": 1, "b": 2}, 3))
    _publish(tmp_path, "large", _graph({"b": 2, "a": 1}, 4))
    small, large = _shared(tmp_path, "small"), _shared(tmp_path, "large")
    assert small.samefile(large)
    assert not small.is_symlink()
    assert small.stat().st_nlink == 3


def test_the_graph_computes_the_same(tmp_path: Path) -> None:
    """ONNX Runtime finds the parameters beside the graph."""
    _publish(tmp_path, "small", _graph({"a": 1, "b": 2}, 3))
    path = tmp_path / "repository" / "small" / "1" / "model.onnx"
    (answer,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": np.zeros(1024, np.float32)})
    assert (answer == 6).all()


def test_a_graph_without_parameters_is_left_alone() -> None:
    """Nothing to share, nothing changed."""
    content = _graph({}, 3)
    assert sharing.split(content) == (content, None, b"")


def test_other_weights_replace_the_file(tmp_path: Path) -> None:
    """A model that is made again has nothing stale beside it; the record is whole and covers both files."""
    first = _publish(tmp_path, "small", _graph({"a": 1}, 3))
    second = _publish(tmp_path, "small", _graph({"a": 5}, 3))
    assert first.digest != second.digest
    assert set(second.files) == {"model.onnx", _shared(tmp_path, "small").name}
    assert manifest.read("small", tmp_path / "repository") == second


def test_a_damaged_file_is_noticed(tmp_path: Path) -> None:
    """Weights that aren't those of the record make the model count as missing, and `store` writes them again."""
    content = _graph({"a": 1}, 3)
    _publish(tmp_path, "small", content)
    _shared(tmp_path, "small").write_bytes(b"half")
    assert manifest.read("small", tmp_path / "repository") is None
    _publish(tmp_path, "small", content)
    assert manifest.read("small", tmp_path / "repository") is not None


def test_the_gateway_computes_the_same_digest(tmp_path: Path) -> None:
    """Exporter and gateway agree on the digest of several files, whatever their hashes sort like."""
    for value in range(8):
        name = f"model{value}"
        record = _publish(tmp_path, name, _graph({"a": value}, value))
        assert files_digest(tmp_path / "repository" / name / "1") == record.digest
