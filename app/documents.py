"""Read JSON and YAML strictly: each document has one meaning, and reading it costs a bounded amount of work.

Refused in both: a key given twice, a key that is no text, numbers that are not finite or need more than 64 bits, lone
surrogates, deep nesting, and more values than the caller of these functions allows. Refused in YAML: aliases and tags.

YAML is read with the core schema of YAML 1.2, which knows the same values as JSON: `no` and `on` are text, `010` is
ten, and neither `1:30` nor `2024-01-01` is a number or a date.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, TypeVar

import yaml

from app.errors import InvalidParameter

DEEPEST = 32
_LONGEST_NUMBER = 40  # characters; 64-bit integers and exact float64 need 24 at most
_SHOWN = 80  # characters of a key in a message
_SURROGATE = re.compile("[\ud800-\udfff]")

N = TypeVar("N", int, float)


def read_json(data: str | bytes, most_values: int) -> Any:
    """The value of a JSON text; a byte order mark before it is ignored.

    Raises:
        InvalidParameter: no JSON, or refused as described above; the message fits behind "the body: ".
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        _check_marks(text, ",[{", most_values)
        value = _decoded(text)
    except UnicodeDecodeError as error:
        raise InvalidParameter(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise InvalidParameter(f"no JSON: line {error.lineno}, column {error.colno}") from error
    _check(value, most_values)
    return value


def read_json_or_yaml(text: str, most_values: int) -> Any:
    """The value of a JSON object or of a YAML document; what is JSON by its grammar is never read as YAML.

    Raises:
        InvalidParameter: neither, or refused as described above.
    """
    _check_marks(text, ",[{\n", most_values)
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        try:
            value = _decoded(text)
        except json.JSONDecodeError:  # a flow mapping of YAML begins like an object
            return read_yaml(text, most_values)
        _check(value, most_values)
        return value
    return read_yaml(text, most_values)


def _check_marks(text: str, marks: str, most_values: int) -> None:
    """Refuse a text with far too many values before it is taken apart.

    One of the marks stands before every value but the first; texts may hold some, too, so twice as many are allowed.
    """
    if sum(map(text.count, marks)) > 2 * most_values:
        raise InvalidParameter(f"more than {most_values} values")


def _decoded(text: str) -> Any:
    try:
        return _JSON.decode(text.removeprefix("\ufeff"))
    except RecursionError as error:
        raise InvalidParameter(f"nested deeper than {DEEPEST} levels") from error


def read_yaml(text: str, most_values: int) -> Any:
    """The value of a YAML document.

    Raises:
        InvalidParameter: no YAML, or refused as described above.
    """
    try:
        return _Loader(text.removeprefix("\ufeff"), most_values).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InvalidParameter(f"no YAML{place}") from error
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise InvalidParameter("no YAML") from error


def clipped(text: str, most: int = _SHOWN) -> str:
    """A caller's text for a message: short, and without lone surrogates."""
    text = _SURROGATE.sub("\ufffd", text[: most + 1])
    return text if len(text) <= most else f"{text[:most]}…"


def is_text(value: str) -> bool:
    """True if a string can be written as UTF-8, that is, holds no lone surrogate."""
    return _SURROGATE.search(value) is None


def _integer(text: str) -> int:
    return _number(text, int, lambda value: -(1 << 63) <= value < 1 << 64)


def _float(text: str) -> float:
    return _number(text, float, math.isfinite)


def _number(text: str, read: Callable[[str], N], fits: Callable[[N], bool]) -> N:
    if len(text) > _LONGEST_NUMBER:
        raise InvalidParameter(f"a number of {len(text)} characters; the limit is {_LONGEST_NUMBER}")
    value = read(text)
    if not fits(value):
        raise InvalidParameter(f"the number {text} is out of range")
    return value


def _constant(text: str) -> float:
    raise InvalidParameter(f"{text} is not a number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        _refuse_twice([key for key, _ in pairs])
    return found


def _refuse_twice(keys: list[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise InvalidParameter(f"the key {clipped(key)!r} is given twice")
        seen.add(key)


_JSON = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def _check(document: Any, most_values: int) -> None:
    """Check depth, number and texts of a document's values, level by level, so that deep nesting needs no
    recursion.
    """
    level, left = [document], most_values
    for _ in range(DEEPEST):
        left -= len(level)
        if left < 0:
            raise InvalidParameter(f"more than {most_values} values")
        inner: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, dict):
                inner += value.values()
                for key in value:
                    _check_text(key)
        level = inner
        if not level:
            return
    raise InvalidParameter(f"nested deeper than {DEEPEST} levels")


def _check_text(text: str) -> None:
    if not text.isascii() and not is_text(text):
        raise InvalidParameter(f"{clipped(text)!r} holds a lone surrogate, which is no character")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types here
    """See the module."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}
    yaml_constructors: ClassVar[dict[str, Any]] = dict(yaml.SafeLoader.yaml_constructors)

    def __init__(self, text: str, most_values: int) -> None:
        super().__init__(text)
        self._most = self._left = most_values
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise InvalidParameter("aliases (*name) can't be used; write out what they stand for")
        if event.tag is not None:
            raise InvalidParameter("tags (!name) can't be used")
        self._left -= 1
        if self._left < 0:
            raise InvalidParameter(f"more than {self._most} values")
        self._depth += 1
        if self._depth > DEEPEST:
            raise InvalidParameter(f"nested deeper than {DEEPEST} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if not isinstance(key, str):
                raise InvalidParameter(f"the key {clipped(str(key))} is no text; put it in quotes")
        _refuse_twice(keys)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def _yaml_text(text: str) -> str:
    """Join surrogate pairs: JSON escapes a character beyond 16 bits as two units."""
    if not is_text(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        _check_text(text)
    return text


def _yaml_integer(text: str) -> int:
    if text[:2] in ("0x", "0o") and len(text) <= _LONGEST_NUMBER:
        text = str(int(text[2:], 16 if text[1] == "x" else 8))
    return _integer(text)


def _yaml_float(text: str) -> float:
    return _constant(text) if text.lstrip("+-").lower() in (".inf", ".nan") else _float(text)


def _scalar(read: Callable[[str], Any]) -> Callable[[_Loader, yaml.ScalarNode], Any]:
    def construct(loader: _Loader, node: yaml.ScalarNode) -> Any:
        try:
            return read(loader.construct_scalar(node))
        except InvalidParameter as error:
            raise InvalidParameter(f"line {node.start_mark.line + 1}: {error.detail}") from error

    return construct


# Tag -> its plain scalars, and their first characters; https://yaml.org/spec/1.2.2/#103-core-schema
_PLAIN = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
_READ = {"str": _yaml_text, "int": _yaml_integer, "float": _yaml_float}
_TAG = "tag:yaml.org,2002:"
for _name, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)
for _name, _read in _READ.items():
    _Loader.add_constructor(_TAG + _name, _scalar(_read))
