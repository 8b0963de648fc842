"""A checkpoint is read as data: every kind of number right, every other kind of file refused by what it is."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.models.checkpoints import Named, View, Writer, network, write, write_pickle

from export.errors import ExportError
from export.yolo11 import architecture, checkpoint
from export.yolo11.records import Array, Record

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


def _with(tensor: Any) -> dict[str, Any]:
    """A checkpoint whose network has one buffer."""
    return network(Record("DetectionModel", {"_buffers": {"it": tensor}}))


def _read(path: Path, tensor: Any) -> Array:
    return checkpoint.read(write(path / "it.pt", _with(tensor))).need("it")


def test_the_tree_comes_back(tmp_path: Path) -> None:
    """Every module, parameter and attribute of a network is as it was written."""
    model = architecture.network("n", np.random.default_rng(1))
    found = checkpoint.read(write(tmp_path / "it.pt", network(model)))

    def same(there: Record, was: Record) -> int:
        assert there.kind == was.kind
        for table in ("_parameters", "_buffers"):
            for name, array in was.state.get(table, {}).items():
                assert (
                    (there.tensor(name) is None) if array is None else np.array_equal(there.need(name), array)
                )
        plain = {key: value for key, value in was.state.items() if isinstance(value, int | float | str)}
        assert {key: there.state[key] for key in plain} == plain
        pairs = zip(there.children(), was.children(), strict=True)
        return 1 + sum(same(*pair) for pair in pairs)

    assert same(found, model) > 200


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8"])
def test_numbers_of_every_width(tmp_path: Path, dtype: str) -> None:
    """Half, single, double and whole numbers become float32."""
    found = _read(tmp_path, VALUES.astype(dtype))
    assert found.dtype == np.float32
    assert np.array_equal(found, VALUES)


def test_bfloat16(tmp_path: Path) -> None:
    """The upper halves of float32 are read as that."""
    upper = (VALUES.view(np.uint32) >> 16).astype(np.uint16)
    assert np.array_equal(_read(tmp_path, upper), VALUES)


def test_big_endian(tmp_path: Path) -> None:
    """The file says in which order its bytes are."""
    writer = Writer()
    pickle = writer.pickle(_with(VALUES))
    path = write_pickle(tmp_path / "it.pt", pickle, [s.byteswap() for s in writer.storages], byteorder=b"big")
    assert np.array_equal(checkpoint.read(path).need("it"), VALUES)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        pytest.param((0, (3, 4), (4, 1)), VALUES, id="whole"),
        pytest.param((0, (4, 3), (1, 4)), VALUES.T, id="transposed"),
        pytest.param((5, (2, 2), (4, 1)), VALUES[1:, 1:3], id="a window"),
        pytest.param((1, (3,), (4,)), VALUES[:, 1], id="a column"),
        pytest.param((11, (), ()), VALUES[2, 3], id="a scalar"),
        pytest.param((4, (2, 4), (0, 1)), np.stack([VALUES[1]] * 2), id="expanded"),
        pytest.param((0, (0, 4), (4, 1)), np.zeros((0, 4)), id="empty"),
        pytest.param((99, (0,), (1,)), np.zeros(0), id="empty, anywhere"),
    ],
)
def test_views(tmp_path: Path, view: tuple[int, tuple[int, ...], tuple[int, ...]], expected: Array) -> None:
    """A tensor is what its offset, sizes and strides make of its storage."""
    assert np.array_equal(_read(tmp_path, View(VALUES.ravel(), *view)), expected)


@pytest.mark.parametrize(
    "view",
    [
        pytest.param((1, (12,), (1,)), id="one too many"),
        pytest.param((0, (3, 4), (5, 1)), id="strides too long"),
        pytest.param((-1, (2,), (1,)), id="before the start"),
        pytest.param((0, (2,), (-1,)), id="backwards"),
        pytest.param((0, (-2, -2), (1, 1)), id="negative sizes"),
        pytest.param((0, (1 << 20, 1 << 20), (0, 0)), id="expanded beyond measure"),
        pytest.param((0, (2, 2), (1,)), id="too few strides"),
        pytest.param((0, (1,) * 70, (1,) * 70), id="70 axes"),
    ],
)
def test_views_outside_the_storage(
    tmp_path: Path, view: tuple[int, tuple[int, ...], tuple[int, ...]]
) -> None:
    """Nothing outside a storage is ever read."""
    with pytest.raises(ExportError, match=r"a tensor (reaches|has)"):
        _read(tmp_path, View(VALUES.ravel(), *view))


def test_a_storage_that_is_cut(tmp_path: Path) -> None:
    """Fewer bytes than elements are an error that names the part."""
    writer = Writer()
    pickle = writer.pickle(_with(VALUES))
    path = write_pickle(tmp_path / "it.pt", pickle, [VALUES[:2]])
    with pytest.raises(ExportError, match="data/'0' has 32 bytes, not 48"):
        checkpoint.read(path).need("it")


def test_what_training_leaves_behind(tmp_path: Path) -> None:
    """Losses, paths and metrics in a checkpoint are no obstacle; the averaged network is taken."""
    content = _with(VALUES)
    content["ema"] = Record(
        "DetectionModel", {"_buffers": {"it": -VALUES}, "criterion": Record("v8DetectionLoss")}
    )
    content["train_args"] = {"save_dir": Record("PosixPath"), "metrics": [Record("scalar"), 0.5]}
    content["optimizer"] = {"state": {0: {"exp_avg": VALUES}}}
    assert np.array_equal(checkpoint.read(write(tmp_path / "it.pt", content)).need("it"), -VALUES)


def _zip(**parts: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name.replace("__", "/"), data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(b"no weights", "no zip file", id="garbage"),
        pytest.param(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "before 1.6", id="before 1.6"),
        pytest.param(b'\x40\0\0\0\0\0\0\0{"a": 1}', "safetensors", id="safetensors"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", id="git lfs"),
        pytest.param(b"\n<!DOCTYPE html><html>", "a web page", id="web page"),
        pytest.param(b"\x08\x08\x12\x07pytorch", "ONNX graph", id="onnx"),
        pytest.param(_zip(a__readme=b"x"), "without the data.pkl", id="another zip"),
        pytest.param(_zip(a__data=b"x")[:40], "no zip file", id="cut zip"),
        pytest.param(
            _zip(**{"a__data.pkl": b"\x80\x02N.", "a__constants.pkl": b"x"}), "TorchScript", id="torchscript"
        ),
        pytest.param(
            _zip(**{"a__data.pkl": b"\x80\x02N.", "a__byteorder": b"pdp"}), "byte order", id="byte order"
        ),
        pytest.param(_zip(**{"a__data.pkl": b"\x80\x02N."}), "it holds a NoneType", id="nothing"),
        pytest.param(_zip(**{"a__data.pkl": b"\x80\x02"}), "damaged", id="no end"),
        pytest.param(_zip(**{"a__data.pkl": b"\x80\x02}."}), "no DetectionModel", id="no model"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, said: str) -> None:
    """A file that is something else is refused, and the message says what it is."""
    path = tmp_path / "it.pt"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=said):
        checkpoint.read(path)


def test_a_state_dict_is_refused(tmp_path: Path) -> None:
    """Weights without their layers can't be exported, and the message says so."""
    with pytest.raises(ExportError, match="state_dict alone"):
        checkpoint.read(write(tmp_path / "it.pt", {"model.0.conv.weight": VALUES}))


def test_another_network_is_refused(tmp_path: Path) -> None:
    """Under `model` must be a detector."""
    with pytest.raises(ExportError, match=r"names ultralytics\.nn\.tasks\.SegmentationModel"):
        checkpoint.read(write(tmp_path / "it.pt", {"model": Named("ultralytics.nn.tasks.SegmentationModel")}))


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    """A description of a gigabyte, which is a megabyte packed, isn't unpacked."""
    path = tmp_path / "it.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data.pkl", "w") as part:
        for _ in range(64):
            part.write(bytes(1 << 20))
    assert path.stat().st_size < 100_000
    with pytest.raises(ExportError, match="more than"):
        checkpoint.read(path)


def test_a_storage_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage larger than any of YOLO11 isn't unpacked."""
    monkeypatch.setattr(checkpoint, "_MOST_STORAGE_BYTES", 16)
    with pytest.raises(ExportError, match="has 48 bytes, more than 16"):
        _read(tmp_path, VALUES)


def test_too_many_bytes_in_all_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of what is packed is bounded before anything is read."""
    monkeypatch.setattr(checkpoint, "_MOST_TOTAL_BYTES", 100)
    with pytest.raises(ExportError, match="unpacked it would have"):
        _read(tmp_path, VALUES)
