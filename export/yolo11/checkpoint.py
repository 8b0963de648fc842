"""Read an Ultralytics checkpoint without Ultralytics and without PyTorch: a zip of one pickle and the numbers."""

from __future__ import annotations

import functools
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError
from export.yolo11.records import Array, Record, Tensor
from export.yolo11.unpickle import MOST_BYTES, Name, loads

_MOST_FILES = 50_000
_MOST_STORAGE_BYTES = 1 << 29
_MOST_TOTAL_BYTES = 1 << 32

# How a storage's elements lie in the file. bfloat16 is the upper half of a float32.
_ELEMENTS = {
    "HalfStorage": "f2", "FloatStorage": "f4", "DoubleStorage": "f8", "BFloat16Storage": "u2", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "u1",
}  # fmt: skip
# Modules of a YOLO11 detector, and what training leaves beside it in a checkpoint: all become plain records.
_RECORDS = (
    *(f"torch.nn.modules.container.{name}" for name in ("Sequential", "ModuleList")),
    *(f"torch.nn.modules.activation.{name}" for name in ("SiLU", "ReLU", "LeakyReLU", "Sigmoid")),
    "torch.nn.modules.conv.Conv2d",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.upsampling.Upsample",
    "torch.nn.modules.loss.BCEWithLogitsLoss",
    *(f"ultralytics.nn.modules.conv.{name}" for name in ("Conv", "DWConv", "Concat")),
    *(
        f"ultralytics.nn.modules.block.{name}"
        for name in ("Bottleneck", "C3k", "C3k2", "SPPF", "C2PSA", "PSABlock", "Attention", "DFL")
    ),
    "ultralytics.nn.modules.head.Detect",
    "ultralytics.nn.tasks.DetectionModel",
    *(f"ultralytics.utils.loss.{name}" for name in ("v8DetectionLoss", "BboxLoss", "DFLoss")),
    "ultralytics.utils.tal.TaskAlignedAssigner",
    "ultralytics.utils.IterableSimpleNamespace",
    "torch.device",
    "torch.Size",
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath")
    ),
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    "_codecs.encode",
    "builtins.set",
    "__builtin__.set",
)
# What people pass instead: the beginning of the file, and what to say of it.
_OTHERS = (
    (b"", "it is empty"),
    (
        b"\x80",
        "it was saved by PyTorch before 1.6 or as a plain pickle; load it and save it again with a newer one",
    ),
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the file: `git lfs pull` brings that"),
    (b"<", "it is a web page, not a checkpoint; download it again"),
    (b"\x89HDF", "it is an HDF5 file"),
    (b"\x08", "it looks like an ONNX graph; the checkpoint (.pt) is needed"),
)


def read(path: Path) -> Record:
    """The network in a checkpoint: a DetectionModel whose parameters are read when they are used.

    The trained average (`ema`) is taken where the file has one, as Ultralytics does.

    Raises:
        ExportError: the file is no such checkpoint, or names what no YOLO11 needs; nothing of it was run.
    """
    try:
        content = _Archive(path).content()
    except ExportError as error:
        raise ExportError(f"{path} is no checkpoint of YOLO11: {error}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{path} is no checkpoint of YOLO11: it holds a {type(content).__name__}, no dict")
    network = content.get("ema") or content.get("model")
    if not isinstance(network, Record) or network.kind != "DetectionModel":
        raise ExportError(
            f"{path} is no checkpoint of YOLO11: under `model` is no DetectionModel"
            " (a state_dict alone doesn't say how its layers are joined)"
        )
    return network


class _Archive:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                head = file.read(64)
            with zipfile.ZipFile(path) as archive:
                self._entries = {entry.filename: entry for entry in archive.infolist()}
        except zipfile.BadZipFile as error:
            raise ExportError(_other(head)) from error
        self._check_sizes()
        pickles = [name for name in self._entries if name.count("/") <= 1 and name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise ExportError("it is a zip without the data.pkl of a checkpoint")
        if self._inside(pickles[0], "constants.pkl") in self._entries:
            raise ExportError("it is a TorchScript program; the checkpoint it was made from is needed")
        self._pickle = pickles[0]
        order = self._read(self._inside(self._pickle, "byteorder"), 16, b"little")
        self._order = {b"little": "<", b"big": ">"}.get(order.strip())
        if self._order is None:
            raise ExportError("its byte order is neither little nor big")

    def content(self) -> Any:
        return loads(self._read(self._pickle, MOST_BYTES), self._known(), self._storage)

    def _check_sizes(self) -> None:
        total = sum(entry.file_size for entry in self._entries.values())
        if len(self._entries) > _MOST_FILES or total > _MOST_TOTAL_BYTES:
            raise ExportError(f"unpacked it would have {len(self._entries)} files of {total} bytes")

    @staticmethod
    def _inside(pickle: str, name: str) -> str:
        return f"{pickle.removesuffix('data.pkl')}{name}"

    def _read(self, name: str, most: int, default: bytes | None = None) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            if default is None:
                raise ExportError(f"its part {name[:60]!a} is missing")
            return default
        if entry.file_size > most:
            raise ExportError(f"its part {name[:60]!a} has {entry.file_size} bytes, more than {most}")
        try:
            with zipfile.ZipFile(self._path) as archive:
                return archive.read(entry)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise ExportError(f"its part {name[:60]!a} is damaged or encrypted") from error

    def _storage(self, identity: Any) -> _Storage:
        """The storage that a persistent id names: ("storage", its type, its file, its device, its elements)."""
        if not (isinstance(identity, tuple) and len(identity) == 5 and identity[0] == "storage"):
            raise ExportError("it refers to something that is no storage: refused")
        _, kind, key, _, numel = identity
        short = kind.name.removeprefix("torch.") if isinstance(kind, Name) else ""
        if short not in _ELEMENTS or type(key) is not str or type(numel) is not int or numel < 0:
            raise ExportError("it refers to a storage of an unknown type: refused")
        return _Storage(functools.partial(self._elements, short, key, numel), numel)

    def _elements(self, kind: str, key: str, numel: int) -> Array:
        dtype = np.dtype(f"{self._order}{_ELEMENTS[kind]}")
        data = self._read(self._inside(self._pickle, f"data/{key}"), _MOST_STORAGE_BYTES)
        if len(data) != numel * dtype.itemsize:
            raise ExportError(
                f"its part data/{key[:60]!a} has {len(data)} bytes, not {numel * dtype.itemsize}"
            )
        array = np.frombuffer(data, dtype)
        return (array.astype(np.uint32) << 16).view(np.float32) if kind == "BFloat16Storage" else array

    def _known(self) -> dict[str, Name]:
        known: dict[str, Callable[[tuple[Any, ...]], Any]] = {
            **{name: functools.partial(_record, name.rpartition(".")[2]) for name in _RECORDS},
            **{f"torch.{name}": _never for name in _ELEMENTS},
            "collections.OrderedDict": _ordered,
            "builtins.getattr": _method,
            "__builtin__.getattr": _method,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": _parameter,
        }
        return {name: Name(name, make) for name, make in known.items()}


class _Storage:
    """A storage that is read from the archive when a tensor of it is used."""

    def __init__(self, load: Callable[[], Array], numel: int) -> None:
        self.load, self.numel = load, numel


def _other(head: bytes) -> str:
    if len(head) > 9 and head[8:9] == b"{":
        return "it is a safetensors file, which doesn't say how its layers are joined; the .pt file is needed"
    for start, said in _OTHERS[1:] if head else _OTHERS[:1]:
        if head.lstrip().startswith(start):
            return said
    return "it is no zip file, or a damaged or cut one"


def _record(kind: str, _: tuple[Any, ...]) -> Record:
    return Record(kind)


def _method(arguments: tuple[Any, ...]) -> Record:
    """The method of a module that a folded one names in its attributes. It isn't looked up: nothing needs it."""
    module, name = arguments if len(arguments) == 2 else (None, None)
    known = isinstance(module, Record | Name) and type(name) is str and name in {"forward", "forward_fuse"}
    if not known:
        raise ExportError("it takes an attribute by getattr: refused, and nothing of it was run")
    return Record("method")


def _never(_: tuple[Any, ...]) -> Any:
    raise ExportError("it makes a storage out of nothing: refused")


def _ordered(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise ExportError("it fills a dict in one step: refused")
    return {}


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    if len(arguments) not in {6, 7} or not isinstance(arguments[0], _Storage):
        raise ExportError("it makes a tensor of something else than a storage: refused")
    storage, offset, shape, strides = arguments[:4]
    if not (isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise ExportError("it makes a tensor whose sizes are no tuple: refused")
    return Tensor(storage.load, storage.numel, offset, shape, strides)


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    if not arguments or not isinstance(arguments[0], Tensor):
        raise ExportError("it makes a parameter of something else than a tensor: refused")
    return arguments[0]
