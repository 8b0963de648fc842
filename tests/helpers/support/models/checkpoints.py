"""Checkpoints in the form of `torch.save`, written without PyTorch: the zip, its pickle, opcode by opcode."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.yolo11.checkpoint import _RECORDS
from export.yolo11.records import Array, Record

STORAGES = {
    "f2": "HalfStorage",
    "f4": "FloatStorage",
    "f8": "DoubleStorage",
    "i8": "LongStorage",
    "u2": "BFloat16Storage",
}
_MODULES = {name.rpartition(".")[2]: name for name in _RECORDS}


@dataclass(frozen=True)
class Named:
    """A name in the pickle, such as `torch.FloatStorage`."""

    name: str


@dataclass(frozen=True, eq=False)
class View:
    """A tensor that is a view of `storage`, which is written once however many views there are."""

    storage: Array
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class Writer:
    """A pickle of protocol 2, and the storages it refers to. Arrays are written as `dtype`."""

    dtype: str | None = None
    out: bytearray = field(default_factory=lambda: bytearray(b"\x80\x02"))
    storages: list[Array] = field(default_factory=list)

    def pickle(self, value: Any) -> bytes:
        self.put(value)
        return bytes(self.out) + b"."

    def put(self, value: Any) -> None:
        if isinstance(value, str):
            data = value.encode()
            self.out += b"X" + struct.pack("<I", len(data)) + data
        elif value is None or isinstance(value, bool):
            self.out += {None: b"N", True: b"\x88", False: b"\x89"}[value]
        elif isinstance(value, int):
            self.out += b"J" + struct.pack("<i", value)
        elif isinstance(value, float):
            self.out += b"G" + struct.pack(">d", value)
        elif isinstance(value, Named):
            module, _, name = value.name.rpartition(".")
            self.out += f"c{module}\n{name}\n".encode()
        elif isinstance(value, list | tuple | dict):
            self._container(value)
        elif isinstance(value, Record):
            self.put(Named(_MODULES[value.kind]))
            self.out += b")\x81"
            self.put(value.state)
            self.out += b"b"
        elif isinstance(value, View):
            self._tensor(value)
        else:
            array = np.ascontiguousarray(value, self.dtype)
            self._tensor(View(array, 0, array.shape, tuple(step // array.itemsize for step in array.strides)))

    def _container(self, value: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> None:
        items = [x for pair in value.items() for x in pair] if isinstance(value, dict) else value
        self.out += b"(" if isinstance(value, tuple) else b"}(" if isinstance(value, dict) else b"]("
        for item in items:
            self.put(item)
        self.out += b"t" if isinstance(value, tuple) else b"u" if isinstance(value, dict) else b"e"

    def _tensor(self, view: View) -> None:
        known = [i for i, storage in enumerate(self.storages) if storage is view.storage]
        key = known[0] if known else len(self.storages)
        if not known:
            self.storages.append(view.storage)
        kind = f"torch.{STORAGES[view.storage.dtype.str[1:]]}"
        self.put(Named("torch._utils._rebuild_tensor_v2"))
        self.out += b"("
        self.put(("storage", Named(kind), str(key), "cpu", view.storage.size))
        self.out += b"Q"
        for value in (view.offset, view.shape, view.strides, False):
            self.put(value)
        self.put(Named("collections.OrderedDict"))
        self.out += b")RtR"


def write(path: Path, content: Any, dtype: str | None = None, **parts: bytes) -> Path:
    """A checkpoint with `content`; `parts` are further files of its zip."""
    writer = Writer(dtype)
    return write_pickle(path, writer.pickle(content), writer.storages, **parts)


def write_pickle(path: Path, pickle: bytes, storages: list[Array] | None = None, **parts: bytes) -> Path:
    """A checkpoint around a pickle that is there already."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle)
        for number, storage in enumerate(storages or []):
            archive.writestr(f"archive/data/{number}", storage.tobytes())
        for name, data in parts.items():
            archive.writestr(f"archive/{name}", data)
    return path


def network(model: Record, names: Any = None) -> dict[str, Any]:
    """The content of a checkpoint around a network, as Ultralytics saves it."""
    model.state["names"] = {i: f"class {i}" for i in range(80)} if names is None else names
    return {
        "epoch": -1,
        "ema": None,
        "model": model,
        "optimizer": None,
        "train_args": {"imgsz": 640},
        "version": "8.3.0",
    }
