"""The cache of optimised graphs changes how fast a model is loaded, and nothing else."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.engine.embedded import graph_cache
from app.engine.embedded.graph_cache import CachedSession, GraphCache, Source
from app.engine.embedded.initializers import external
from app.engine.embedded.model import open_session
from app.engine.weights import files_digest

MOST = 1 << 30


def model(folder: Path, side: int, seed: int = 0) -> Source:
    """A model of two convolutions and a matrix, whose weights are those of every other side."""
    numbers = np.random.default_rng(seed)
    weights = {
        "first": numbers.standard_normal((64, 3, 3, 3)),
        "second": numbers.standard_normal((64, 64, 3, 3)),
        "matrix": numbers.standard_normal((64, 300)),
    }
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["c"], ["d"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["d", "matrix"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "m",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 300])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    path = folder / f"{side}_{seed}" / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return Source(path, files_digest(path.parent), lambda: True)


def run(session: ort.InferenceSession) -> bytes:
    shape = session.get_inputs()[0].shape
    answer = session.run(None, {"images": np.random.default_rng(1).random(shape, np.float32)})[0]
    return bytes(answer.tobytes())


def opened(source: Source, folder: Path | None, most: int = MOST) -> ort.InferenceSession:
    """As a process of its own would open it: with a cache that has opened nothing yet."""
    return open_session(source, 1, "cpu", GraphCache(folder, most, 0) if folder else None)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return model(tmp_path, 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_answers_are_the_same_to_the_bit(source: Source, folder: Path) -> None:
    """Without the cache, while the entry is made, and from the entry."""
    answer = run(opened(source, None))
    made, found = opened(source, folder), opened(source, folder)
    assert isinstance(made, CachedSession)
    assert isinstance(found, CachedSession)
    assert run(made) == run(found) == answer


def test_a_second_start_optimises_nothing(
    source: Source, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached graph is taken from the cache, and ONNX Runtime doesn't read the model's own files."""
    answer = run(opened(source, folder))
    monkeypatch.setattr(graph_cache, "_saving", None)
    monkeypatch.setattr(graph_cache, "_plain", None)
    assert run(opened(source, folder)) == answer


def test_another_model_never_gets_this_graph(tmp_path: Path, folder: Path) -> None:
    """Not by the same path, nor by an entry that was renamed to the other model's."""
    one, other = model(tmp_path, 32, 0), model(tmp_path, 32, 1)
    answers = run(opened(one, None)), run(opened(other, None))
    run(opened(one, folder))
    (first,) = folder.glob("*.graph")
    run(opened(other, folder))
    (second,) = set(folder.glob("*.graph")) - {first}
    shutil.copy(first, second)
    assert run(opened(other, folder)) == answers[1]
    shutil.copytree(other.path.parent, one.path.parent, dirs_exist_ok=True)
    changed = Source(one.path, files_digest(one.path.parent), lambda: True)
    assert run(opened(changed, folder)) == answers[1]


@pytest.mark.parametrize("part", ["processor", "onnxruntime", "optimisation", "system"])
def test_what_was_made_elsewhere_is_not_used(
    source: Source, folder: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Another processor or ONNX Runtime optimises differently: it has entries of its own."""
    opened(source, folder)
    elsewhere = {**graph_cache.machine(), part: "other"}
    monkeypatch.setattr(graph_cache, "machine", lambda: elsewhere)
    opened(source, folder)
    assert len(list(folder.glob("*.graph"))) == 2


def test_files_that_change_meanwhile_are_not_cached(source: Source, folder: Path) -> None:
    """The digest was of other files than those that were read: nothing is noted under it."""
    open_session(Source(source.path, source.digest, lambda: False), 1, "cpu", GraphCache(folder, MOST, 0))
    assert not list(folder.glob("*.graph"))


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    path.unlink()  # not the file that is mapped
    if how == "flip":
        content[len(content) // 2] ^= 1
    elif how == "cut":
        del content[len(content) // 2 :]
    elif how == "empty":
        content.clear()
    if how != "gone":
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "gone"])
@pytest.mark.parametrize("pattern", ["*.graph", "*.bin"])
def test_a_damaged_entry_is_made_again(source: Source, folder: Path, pattern: str, how: str) -> None:
    """Whatever has happened to its files: the answer is right, and the next start finds a whole entry."""
    answer = run(opened(source, folder))
    for path in folder.glob(pattern):
        damage(path, how)
    gc.collect()
    assert run(opened(source, folder)) == answer
    cached = GraphCache(folder, MOST, 0)._cached(
        {"model": source.digest, "format": 1, "least_bytes": 1 << 16, **graph_cache.machine()},
        ort.SessionOptions,
    )
    assert cached is not None
    assert run(cached) == answer


def test_a_start_finds_the_empty_file_gone(source: Source, folder: Path) -> None:
    """ONNX Runtime asks for the file that the graph names, though nothing is read from it."""
    answer = run(opened(source, folder))
    (folder / "weights").unlink()
    assert run(opened(source, folder)) == answer
    assert isinstance(opened(source, folder), CachedSession)


def test_sizes_share_their_weights(tmp_path: Path, folder: Path) -> None:
    """On disk and in memory: one file, mapped once."""
    cache = GraphCache(folder, MOST, 0)
    sessions = [open_session(model(tmp_path, side), 1, "cpu", cache) for side in (32, 64)]
    assert len(list(folder.glob("*.bin"))) == 1
    (one,), (other,) = (set(map(id, session._weights[1].values())) for session in sessions)
    assert one == other
    assert [run(session) for session in sessions] == [run(opened(model(tmp_path, s), None)) for s in (32, 64)]


def test_there_is_never_more_than_allowed(tmp_path: Path, folder: Path) -> None:
    """The least recently used graph is removed, with the weights that only it has."""
    sources = [model(tmp_path, 32, seed) for seed in range(3)]
    opened(sources[0], folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    os.utime(next(folder.glob("*.graph")), (0, 0))
    most = int(2.5 * size)
    for source in sources[1:]:
        opened(source, folder, most)
    assert len(list(folder.glob("*.graph"))) == len(list(folder.glob("*.bin"))) == 2
    assert sum(path.stat().st_size for path in folder.iterdir()) <= most
    assert isinstance(opened(sources[0], folder, 10), ort.InferenceSession)  # larger than all that is allowed


def test_a_full_disk_is_no_failure(source: Source, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is served from its own files, and nothing half is left."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph_cache, "_write", full)
    assert run(opened(source, folder)) == run(opened(source, None))
    assert not list(folder.glob("*.graph"))
    assert not list(folder.glob(".*"))


def test_a_folder_that_cannot_be_made_is_no_failure(source: Source, tmp_path: Path) -> None:
    """Nor is one that is a file."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert run(opened(source, place)) == run(opened(source, None))


def test_a_folder_of_somebody_else_is_not_used(source: Source, folder: Path) -> None:
    """A writer of the folder could put another graph under a model's name."""
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    opened(source, folder)
    os.chown(folder, 12345, 12345)
    assert not isinstance(opened(source, folder), CachedSession)


def _open_in_process(source: tuple[Path, str], folder: Path) -> bytes:
    return run(opened(Source(*source, lambda: True), folder))


def test_processes_may_fill_it_at_once(source: Source, folder: Path) -> None:
    """Several that find nothing write the same, each by a file of its own that takes its place at once."""
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        answers = pool.starmap(_open_in_process, [((source.path, source.digest), folder)] * 6)
    assert set(answers) == {run(opened(source, None))}
    assert len(list(folder.glob("*.graph"))) == len(list(folder.glob("*.bin"))) == 1
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("content", [b"", b"\x00", b"\x3a\xff\xff\xff\xff\x7f", b"\xff" * 20, b"words"])
def test_what_is_no_model_has_no_weights(content: bytes) -> None:
    """Bytes of any kind end in a ValueError, or in no tensors at all."""
    with contextlib.suppress(ValueError):
        assert external(content) == []


def test_the_reader_agrees_with_onnx(source: Source, tmp_path: Path) -> None:
    """Names, types, shapes and places of external tensors are those that the `onnx` package reads."""
    proto = onnx.load(source.path)
    onnx.save_model(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=1024)
    found = external((tmp_path / "m.onnx").read_bytes())
    saved = onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.initializer
    assert [(f.name, list(f.shape), str(f.offset), str(f.length)) for f in found] == [
        (t.name, list(t.dims), *({e.key: e.value for e in t.external_data}[k] for k in ("offset", "length")))
        for t in saved
        if t.external_data
    ]
    assert len(found) == 3
