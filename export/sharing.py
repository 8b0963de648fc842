"""Weights that the sizes of one architecture have in common, in one file beside each graph (ONNX external data).

Hard-linked, because Triton and ONNX Runtime refuse symbolic links that leave the model's folder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx

from export.artifacts import sha256, write_atomic

# Initializers of this prefix hold parameters of the network, named by their bytes (`export.families.tracing`); all
# others, such as constants that the exporter folded, may differ from size to size and stay in the graph.
PREFIX = "shared_"
LEAST_BYTES = 1024  # smaller parameters stay in the graph, too
FILE_PREFIX, FILE_SUFFIX = "shared-", ".bin"
_PAGE = 4096  # of memory: aligned tensors can be mapped, and sessions of one process share them


def split(content: bytes) -> tuple[bytes, str | None, bytes]:
    """A graph without the shared parameters, the name of the file that it looks for them in, and that file.

    The file is named by its bytes, so sizes that agree in their parameters agree in the file. A graph without such
    parameters comes back as it is, and its file is None.
    """
    model = onnx.load_from_string(content)
    shared = sorted(
        (t for t in model.graph.initializer if t.name.startswith(PREFIX)), key=lambda t: str(t.name)
    )
    if not shared:
        return content, None, b""
    data = bytearray()
    places = []
    for tensor in shared:
        data += bytes(-len(data) % _PAGE)
        places.append((len(data), len(tensor.raw_data)))
        data += tensor.raw_data
    name = f"{FILE_PREFIX}{hashlib.sha256(data).hexdigest()[:16]}{FILE_SUFFIX}"
    for tensor, (offset, length) in zip(shared, places, strict=True):
        _point(tensor, name, offset, length)
    return bytes(model.SerializeToString(deterministic=True)), name, bytes(data)


def store(folder: Path, name: str, data: bytes) -> Path:
    """The shared file in `folder`, written unless it is there whole."""
    path = folder / name
    if not (path.is_file() and sha256(path) == hashlib.sha256(data).hexdigest()):
        write_atomic(path, data)
    return path


def prune(folder: Path, wanted: set[str]) -> None:
    """Remove the shared files in `folder` that nothing looks for any more."""
    for path in folder.glob(f"{FILE_PREFIX}*{FILE_SUFFIX}"):
        if path.name not in wanted:
            path.unlink()


def _point(tensor: onnx.TensorProto, name: str, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
