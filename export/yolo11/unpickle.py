"""A reader of pickles that knows a few names and builds plain data. No code is ever called on the file's behalf.

This is an interpreter of its own for the opcodes that `torch.save` writes, not a subclass of `pickle.Unpickler`:
that one calls whatever `find_class` returns, writes attributes into it, and makes its memo as long as the file says.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from export.errors import ExportError
from export.yolo11.records import Record

MOST_BYTES = 16 << 20
_MOST_STEPS = 2_000_000
_MARK: Final = object()


@dataclass(frozen=True, slots=True)
class Name:
    """A name of the file, which is known. It stands for data, and nothing can be done with it but `make` that."""

    name: str
    make: Callable[[tuple[Any, ...]], Any]


def loads(data: bytes, known: Mapping[str, Name], stored: Callable[[Any], Any]) -> Any:
    """The object in a pickle; `stored` turns a persistent id into data.

    Raises:
        ExportError: the pickle names something unknown, does something unheard of, or is damaged.
    """
    if len(data) > MOST_BYTES:
        raise ExportError(f"its description has {len(data)} bytes, more than {MOST_BYTES}")
    try:
        return _Machine(known, stored).run(data)
    except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
        raise ExportError("its description is damaged") from error


@dataclass(slots=True)
class _Machine:
    known: Mapping[str, Name]
    stored: Callable[[Any], Any]
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    steps: int = 0

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(1)
            if opcode.name in _VALUES:
                self.stack.append(argument)
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            else:
                raise ExportError(f"its description uses the pickle opcode {opcode.name}, which is refused")
        raise ValueError("no end")

    def step(self, count: int) -> None:
        """Count steps, and what a step copies: one object may be named, and copied, in many places."""
        self.steps += count
        if self.steps > _MOST_STEPS:
            raise ExportError(f"its description has more than {_MOST_STEPS} steps")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def to_mark(self) -> list[Any]:
        """Pop the values above the last mark, and the mark."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def name(self, text: str) -> None:
        """A name, given as `module.name`."""
        if text not in self.known:
            raise ExportError(
                f"it names {_safe(text)}, which no YOLO11 needs: refused, and nothing of it was run"
            )
        self.push(self.known[text])

    def stack_global(self) -> None:
        module, attribute = self.pop(2)
        if not (isinstance(module, str) and isinstance(attribute, str)):
            raise ExportError("it names something by what is no text: refused")
        self.name(f"{module}.{attribute}")

    def call(self) -> None:
        maker, arguments = self.pop(2)
        if not (isinstance(maker, Name) and isinstance(arguments, tuple)):
            raise ExportError("it calls something that has no name: refused")
        self.push(maker.make(arguments))

    def build(self) -> None:
        (state,) = self.pop(1)
        target = self.stack[-1]
        if not isinstance(target, Record | dict):
            raise ExportError("it gives attributes to what has none: refused")
        if isinstance(target, Record) and isinstance(state, dict):  # those of a dict are of no use
            self.step(len(state))
            target.state.update((key, value) for key, value in state.items() if isinstance(key, str))

    def append(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("no list")
        self.stack[-1].extend(values)

    def set_items(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not dict or len(values) % 2:
            raise ValueError("no dict")
        pairs = list(zip(values[::2], values[1::2], strict=True))
        self.stack[-1].update((hashable(key), value) for key, value in pairs)

    def add_items(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not set:
            raise ValueError("no set")
        self.stack[-1].update(map(hashable, values))

    def pop(self, count: int) -> list[Any]:
        values = self.stack[-count:]
        if len(values) != count or any(value is _MARK for value in values):
            raise ValueError("stack underflow")
        del self.stack[-count:]
        return values

    def tuple_of(self, count: int) -> None:
        self.push(tuple(self.pop(count)))

    def persistent(self) -> None:
        (identity,) = self.pop(1)
        self.push(self.stored(identity))


def hashable(key: Any) -> Any:
    """A key of a dict or a set: a plain value, because the hash of nested tuples may take for ever.

    Raises:
        ValueError: it is something else.
    """
    if not (key is None or type(key) in {str, int, float, bool, bytes}):
        raise ValueError("a key that is no plain value")
    return key


def _safe(text: str) -> str:
    """A name of a hostile file, fit for a terminal."""
    return ascii(text[:100])[1:-1]


# Opcodes that push the value which stands in the file.
_VALUES = frozenset(
    {
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
        "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    }
)  # fmt: skip
_Step = Callable[[_Machine, Any], Any]
_STEPS: Mapping[str, _Step] = {
    "PROTO": lambda _machine, _version: None,
    "FRAME": lambda _machine, _length: None,
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "MARK": lambda m, _: m.push(_MARK),
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.to_mark(),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_SET": lambda m, _: m.push(set()),
    "LIST": lambda m, _: m.push(m.to_mark()),
    "TUPLE": lambda m, _: m.push(tuple(m.to_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "APPEND": lambda m, _: m.append(m.pop(1)),
    "APPENDS": lambda m, _: m.append(m.to_mark()),
    "SETITEM": lambda m, _: m.set_items(m.pop(2)),
    "SETITEMS": lambda m, _: m.set_items(m.to_mark()),
    "ADDITEMS": lambda m, _: m.add_items(m.to_mark()),
    "PUT": lambda m, index: m.put(index),
    "BINPUT": lambda m, index: m.put(index),
    "LONG_BINPUT": lambda m, index: m.put(index),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "GET": lambda m, index: m.push(m.memo[index]),
    "BINGET": lambda m, index: m.push(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.push(m.memo[index]),
    "GLOBAL": lambda m, text: m.name(text.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda m, _: m.stack_global(),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.persistent(),
}
