"""Accelerators of ONNX Runtime that a branch may run on, in Triton and in the embedded engine. None is the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from routing.units import parse_size

AcceleratorName = Literal["tensorrt", "cuda", "openvino"]
_PRECISIONS = ("fp32", "fp16")
# The keys that each takes, beside its name.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "tensorrt": ("precision", "workspace", "cache"),
    "cuda": ("memory_limit",),
    "openvino": (),
}


@dataclass(frozen=True, slots=True)
class Accelerator:
    """An accelerator and its options; None leaves an option to ONNX Runtime.

    `tensorrt` builds an engine for the GPU when the model is loaded, which takes minutes: `precision` is the lowest
    that it may compute in, `workspace` the most bytes of scratch memory of a layer, `cache` the folder that keeps
    engines for the next start (on the machine of the engine). `cuda`: `memory_limit` is the most bytes of the model's
    arena. `openvino` is for processors.
    """

    name: AcceleratorName
    precision: str = "fp32"
    workspace: int | None = None
    cache: str | None = None
    memory_limit: int | None = None

    @property
    def on_gpu(self) -> bool:
        return self.name != "openvino"


def accelerator_of(value: object) -> Accelerator | None:
    """Read the key `accelerator` of a catalogue: a name, or a table of `name` and options. None stays None.

    Raises:
        ValueError: it is neither; the message begins with the key.
    """
    if value is None:
        return None
    table: Mapping[str, Any] = value if isinstance(value, dict) else {"name": value}
    name = _name(table.get("name"))
    if unknown := sorted(set(table) - {"name", *_KEYS[name]}):
        takes = f"takes {', '.join(_KEYS[name])}" if _KEYS[name] else "takes no options"
        raise ValueError(f"accelerator: {name} {takes}, not {', '.join(unknown)[:80]}")
    return Accelerator(
        name=name,
        precision=_precision(table.get("precision", _PRECISIONS[0])),
        workspace=_size(table, "workspace"),
        cache=_folder(table.get("cache")),
        memory_limit=_size(table, "memory_limit"),
    )


def _name(value: object) -> AcceleratorName:
    for name in get_args(AcceleratorName):
        if value == name:
            return cast(AcceleratorName, name)
    raise ValueError(f"accelerator: name is one of {', '.join(_KEYS)}, got {str(value)[:40]!r}")


def _precision(value: object) -> str:
    if value not in _PRECISIONS:
        raise ValueError(f"accelerator: precision is {' or '.join(_PRECISIONS)}, got {str(value)[:40]!r}")
    return str(value)


def _size(table: Mapping[str, Any], key: str) -> int | None:
    value = table.get(key)
    if value is None:
        return None
    try:
        return parse_size(value if isinstance(value, str) else repr(value))
    except ValueError as error:
        raise ValueError(f"accelerator: {key}: {error}") from error


def _folder(value: object) -> str | None:
    """An absolute path: Triton and the gateway have working folders of their own."""
    if value is None:
        return None
    if not (isinstance(value, str) and value.startswith("/") and value.isprintable()):
        raise ValueError("accelerator: cache is the absolute path of a folder on the machine of the engine")
    return value
