"""Hostile pickles: refused by name, nothing of them run, and no more memory or time taken than a good one needs."""

from __future__ import annotations

import builtins
import operator
import os
import pickle
import pickletools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.models.checkpoints import write_pickle

from export.errors import ExportError
from export.yolo11 import checkpoint


class _Call:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def _refused(folder: Path, data: bytes, said: str) -> None:
    path = write_pickle(folder / "yolo11n.pt", data)
    with pytest.raises(ExportError, match=said):
        checkpoint.read(path)
    assert [p.name for p in folder.iterdir()] == ["yolo11n.pt"]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        pytest.param(os.system, ("touch {}",), r"names posix\.system", id="system"),
        pytest.param(os.mkdir, ("{}",), r"names posix\.mkdir", id="mkdir"),
        pytest.param(eval, ("open({!r}, 'w')",), r"names (builtins|__builtin__)\.eval", id="eval"),
        pytest.param(exec, ("open({!r}, 'w')",), r"names (builtins|__builtin__)\.exec", id="exec"),
        pytest.param(open, ("{}", "w"), r"names (_?io|__builtin__)\.open", id="open"),
        pytest.param(operator.attrgetter, ("system",), r"names operator\.attrgetter", id="attrgetter"),
        pytest.param(builtins.__import__, ("antigravity",), "__import__", id="import"),
    ],
)
def test_calls(
    tmp_path: Path, protocol: int, function: Callable[..., Any], arguments: tuple[str, ...], said: str
) -> None:
    """A function that loading would call is named and not called, in every protocol."""
    target = str(tmp_path / "trapped")
    call = _Call(function, *(argument.format(target) for argument in arguments))
    _refused(tmp_path, pickle.dumps({"model": call}, protocol), f"({said}|opcode)")


def test_nested_getattr(tmp_path: Path) -> None:
    """Attributes of what is known can't be reached."""
    reached = _Call(getattr, _Call(getattr, _Call(dict), "__class__"), "__base__")
    _refused(tmp_path, pickle.dumps(reached, 2), r"names __builtin__\.dict")


CONV = b"cultralytics.nn.modules.conv\nConv\n"


@pytest.mark.parametrize(
    "taken",
    [
        pytest.param(CONV + b"X\x09\0\0\0__class__", id="class of a name"),
        pytest.param(CONV + b")\x81X\x09\0\0\0__class__", id="class of a module"),
        pytest.param(CONV + b")\x81X\x07\0\0\0forwardX\x01\0\0\0x", id="with a default"),
        pytest.param(b"]X\x07\0\0\0forward", id="of a list"),
        pytest.param(CONV + b"]", id="a list as a name"),
        pytest.param(CONV, id="one argument"),
        pytest.param(b"", id="none"),
    ],
)
@pytest.mark.parametrize("module", [b"builtins", b"__builtin__"])
def test_getattr(tmp_path: Path, module: bytes, taken: bytes) -> None:
    """Only getattr of the methods of folded modules is let through, as data; every other use is refused."""
    _refused(tmp_path, b"c" + module + b"\ngetattr\n(" + taken + b"tR.", "by getattr: refused")


NAMES = "ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"(S'touch trapped'\nios\nsystem\n.", "opcode", id="INST"),
        pytest.param(b"(X\x05\0\0\0touchios\nsystem\n.", "opcode INST", id="INST of text"),
        pytest.param(b"(cos\nsystem\nX\x01\0\0\0xo.", r"names os\.system", id="OBJ"),
        pytest.param(b"(ccollections\nOrderedDict\no.", "opcode OBJ", id="OBJ of a known name"),
        pytest.param(b"\x82\x01.", "opcode EXT1", id="EXT1"),
        pytest.param(b"ccollections\nOrderedDict\n)}\x92.", "opcode NEWOBJ_EX", id="NEWOBJ_EX"),
        pytest.param(b"Pposix.system\n.", "opcode PERSID", id="PERSID"),
        pytest.param(b"]2.", "opcode DUP", id="DUP"),
        pytest.param(b"\x97.", "opcode NEXT_BUFFER", id="NEXT_BUFFER"),
        pytest.param(b"X\x02\0\0\0osX\x06\0\0\0system\x93.", r"names os\.system", id="STACK_GLOBAL"),
        pytest.param(b"K\x01K\x02\x93.", "no text", id="STACK_GLOBAL of numbers"),
        pytest.param(b"ccollections\nOrderedDict.__init__\n.", "names collections", id="dotted"),
        pytest.param(b"ccollections OrderedDict\nx\n.", "names collections", id="a blank in a name"),
        pytest.param(b"c\x1b[31mred\nx\n.", r"names \\x1b\[31mred", id="terminal escapes"),
        pytest.param(f"{NAMES}}}X\x01\0\0\0aK\x01sb.".encode(), "gives attributes", id="BUILD of a name"),
        pytest.param(f"{NAMES})R.".encode(), "something else than a storage", id="a tensor of nothing"),
        pytest.param(b"ctorch\nFloatStorage\n)R.", "a storage out of nothing", id="a storage of nothing"),
        pytest.param(b"])R.", "no name", id="REDUCE of a list"),
        pytest.param(b")R.", "damaged", id="REDUCE of too little"),
        pytest.param(b"ccollections\nOrderedDict\n]R.", "no name", id="REDUCE with a list"),
        pytest.param(b"ccollections\nOrderedDict\n(K\x01tR.", "in one step", id="OrderedDict of a number"),
        pytest.param(b"ccollections\nOrderedDict\n(](K\x01etR.", "in one step", id="OrderedDict of numbers"),
        pytest.param(b"\x8f(]\x90.", "damaged", id="a set of lists"),
        pytest.param(b"X\x01\0\0\0aQ.", "no storage", id="persistent text"),
        pytest.param(b"]Q.", "no storage", id="a persistent list"),
        pytest.param(b"(X\x07\0\0\0storageNNNNtQ.", "unknown type", id="a storage of None"),
        pytest.param(
            b"(X\x07\0\0\0storagectorch\nFloatStorage\nK\x01NK\x01tQ.",
            "unknown type",
            id="a key that is a number",
        ),
        pytest.param(
            b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000NJ\xff\xff\xff\xfftQ.",
            "unknown type",
            id="-1 long",
        ),
        pytest.param(
            b"(X\x07\0\0\0storageccollections\nOrderedDict\nX\x01\0\0\x000NK\x01tQ.",
            "unknown type",
            id="no storage type",
        ),
        pytest.param(b"}(])u.", "damaged", id="an unhashable key"),
        pytest.param(b"h\x07.", "damaged", id="nothing in the memo"),
        pytest.param(b"a.", "damaged", id="nothing on the stack"),
        pytest.param(b"(a.", "damaged", id="a mark as a list"),
        pytest.param(b"e.", "damaged", id="no mark"),
        pytest.param(b"I1_000x\n.", "damaged", id="no number"),
        pytest.param(b"\xff.", "damaged", id="no opcode"),
        pytest.param(b"X\xff\xff\xff\x7fabc.", "damaged", id="a text longer than the file"),
    ],
)
def test_opcodes(tmp_path: Path, data: bytes, said: str) -> None:
    """Each way to reach code, or to break the reader, ends in an error."""
    _refused(tmp_path, data, said)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"Nr\xff\xff\xff\xff0" + b"}.", "no DetectionModel", id="a memo of 4 billion"),
        pytest.param(b")" + b"0)" * 1_200_000 + b".", "steps", id="2 million steps"),
        pytest.param(b"](" + b"(" * 100_000 + b".", "damaged|holds", id="100,000 marks"),
        pytest.param(b"]" + b"(h\0l" * 10 + b".", "damaged", id="a memo that isn't there"),
        pytest.param(b"}q\0X\x05\0\0\0modelh\0s.", "no DetectionModel", id="a dict in itself"),
        pytest.param(b"}(" + b")" + b"q\0h\0h\0\x86" * 60 + b"Nu.", "damaged", id="a key of 2^60 tuples"),
        pytest.param(
            b"}q\0("
            + b"".join(b"J" + i.to_bytes(4, "little") + b"N" for i in range(100_000))
            + b"u0"
            + b"ctorch\nSize\nq\x01"
            + b"h\x01)\x81h\0b" * 100_000
            + b".",
            "steps",
            id="100,000 copies of 100,000 attributes",
        ),
        pytest.param(
            b"ccollections\nOrderedDict\nq\0]("
            + b"N" * 100_000
            + b"eq\x010"
            + b"h\0h\x01\x85R" * 100_000
            + b".",
            "in one step",
            id="100,000 dicts of 100,000 pairs",
        ),
        pytest.param(b"(" * 3000 + b"t" * 3000 + b".", "holds a tuple", id="3,000 tuples deep"),
    ],
)
def test_bombs(tmp_path: Path, data: bytes, said: str) -> None:
    """Pickles that would take memory or time without end are refused in seconds of CPU."""
    began = time.process_time()
    _refused(tmp_path, data, said)
    assert time.process_time() - began < 60


def test_the_pickles_above_are_pickles() -> None:
    """The protocols differ in their opcodes, so that testing all of them says something."""
    kinds = [
        frozenset(
            opcode.name for opcode, _, _ in pickletools.genops(pickle.dumps(_Call(os.mkdir, "x"), protocol))
        )
        for protocol in range(6)
    ]
    assert len(set(kinds)) >= 4
