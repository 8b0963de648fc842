"""Plain data that a checkpoint is read into: modules, tensors and storages. None of it can run code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import ExportError

Array = npt.NDArray[Any]
_MOST_ELEMENTS = 1 << 27  # of one tensor: twice what the largest YOLO11 has in all
_MOST_AXES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A strided view of a storage; `load` reads the storage `[numel]` when the tensor is used."""

    load: Callable[[], Array]
    numel: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse a view that reaches outside its storage.

        Raises:
            ExportError: it does, or it is absurdly large.
        """
        if len(self.shape) != len(self.strides) or len(self.shape) > _MOST_AXES:
            raise ExportError("a tensor has sizes and strides that don't fit together")
        numbers = (self.offset, *self.shape, *self.strides)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ExportError("a tensor has an offset, size or stride that is no natural number")
        if 0 in self.shape:
            return
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        count = 1
        for n in self.shape:
            count *= n
        if last >= self.numel or count > _MOST_ELEMENTS:
            raise ExportError("a tensor reaches outside its storage")

    def array(self) -> Array:
        """The elements in the storage's own type (bfloat16 as float32); don't write into it."""
        storage = self.load()
        steps = tuple(step * storage.itemsize for step in self.strides)
        if 0 in self.shape:
            return np.zeros(self.shape, storage.dtype)
        return np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, steps, writeable=False)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Record:
    """An object of a known class: its name without the module, and its attributes."""

    kind: str
    state: dict[str, Any] = field(default_factory=dict)

    def child(self, name: str) -> Record:
        """The module `name` inside this one.

        Raises:
            ExportError: there is none.
        """
        found = self.find(name)
        if found is None:
            raise ExportError(f"a {self.kind} without its part {name}")
        return found

    def find(self, name: str) -> Record | None:
        found = self._table("_modules").get(name)
        return found if isinstance(found, Record) else None

    def children(self) -> list[Record]:
        """The modules inside this one, in their order.

        Raises:
            ExportError: one is something else.
        """
        found = list(self._table("_modules").values())
        if not all(isinstance(module, Record) for module in found):
            raise ExportError(f"a {self.kind} with a part that is no module")
        return found

    def tensor(self, name: str) -> Array | None:
        """A parameter or buffer as float32, or None where the module has none of that name."""
        found = self._table("_parameters").get(name)
        found = self._table("_buffers").get(name) if found is None else found
        if isinstance(found, Tensor):
            found = found.array()
        return np.asarray(found, np.float32) if isinstance(found, np.ndarray) else None

    def need(self, name: str) -> Array:
        """`tensor`, where the module can't do without it.

        Raises:
            ExportError: it isn't there.
        """
        found = self.tensor(name)
        if found is None:
            raise ExportError(f"a {self.kind} without its tensor {name}")
        return found

    def _table(self, name: str) -> dict[Any, Any]:
        table = self.state.get(name)
        return table if isinstance(table, dict) else {}
