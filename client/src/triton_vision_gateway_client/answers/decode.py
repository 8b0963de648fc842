"""JSON documents to dataclasses, by the types of their fields."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union, cast

from triton_vision_gateway_client.errors import UnexpectedAnswer

T = TypeVar("T")
_Field = tuple[str, Any, bool]  # name, type, whether it must be there


def decode(kind: type[T], document: object, **given: object) -> T:
    """Return the dataclass `kind` with the members of a JSON object.

    Members that it lacks are ignored; members that are absent take its defaults.

    Args:
        kind: a dataclass whose fields are JSON's types, `X | None`, `tuple`, `Mapping[str, X]` or such dataclasses.
        document: what JSON was read to.
        given: fields that don't come from the document, taken as they are.

    Raises:
        UnexpectedAnswer: a member is missing or has another type.
    """
    if not isinstance(document, Mapping):
        raise _fault(kind.__name__, "an object", document)
    values: dict[str, Any] = dict(given)
    for name, hint, needed in _fields(cast("Any", kind)):
        if name in given:
            continue
        if name in document:
            values[name] = _converted(hint, document[name], f"{kind.__name__}.{name}")
        elif needed:
            raise UnexpectedAnswer(f"the answer has no member {name!r}, which {kind.__name__} needs")
    return kind(**values)


@functools.cache
def _fields(kind: type[Any]) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(kind)
    found = (field for field in dataclasses.fields(kind) if field.init)
    return tuple((field.name, hints[field.name], _is_needed(field)) for field in found)


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _converted(hint: Any, value: object, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (one for one in arguments if one is not type(None))
        return _converted(hint, value, where)
    if origin is tuple:
        return _tuple(arguments, value, where)
    if origin is not None:  # Mapping[str, X]
        if not isinstance(value, Mapping):
            raise _fault(where, "an object", value)
        return {str(name): _converted(arguments[1], one, f"{where}.{name}") for name, one in value.items()}
    if dataclasses.is_dataclass(hint):
        return decode(cast("type[Any]", hint), value)
    return _plain(hint, value, where)


def _tuple(arguments: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _fault(where, "a list", value)
    if arguments[-1] is Ellipsis:
        return tuple(_converted(arguments[0], one, where) for one in value)
    if len(arguments) != len(value):
        raise _fault(where, f"{len(arguments)} values", value)
    return tuple(_converted(hint, one, where) for hint, one in zip(arguments, value, strict=True))


def _plain(hint: Any, value: object, where: str) -> Any:
    if hint in (Any, object):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise _fault(where, hint.__name__, value)


def _fault(where: str, expected: str, value: object) -> UnexpectedAnswer:
    return UnexpectedAnswer(f"{where} should be {expected}, not {str(value)[:80]!r}")
