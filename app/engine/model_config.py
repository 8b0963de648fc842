"""Reads `config.pbtxt`: Triton's model configuration in protobuf text format.

Only `engine/triton.py` may import tritonclient (and with it gRPC), and the embedded engine runs without either,
so the few fields that it needs are read here. A test compares every committed file with protobuf's own parser.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from routing.catalogue import TensorSpec

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*"""
    r"""|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_.]*|[-+]?[0-9][0-9A-Za-z_.+-]*)"""
    r"""|(?P<mark>[{}\[\]<>:,;])""",
    re.VERBOSE | re.DOTALL,
)
_OPEN = {"{": "}", "<": ">"}
Message = dict[str, list[Any]]


class ConfigError(ValueError):
    """The file is no model configuration; the message says where."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an ensemble; the maps go from the model's tensor names to the ensemble's."""

    model_name: str
    input_map: Mapping[str, str]
    output_map: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The fields that the embedded engine acts on."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    model_filename: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...]


def read(text: str) -> ModelConfig:
    """Parse a `config.pbtxt`.

    Raises:
        ConfigError: not protobuf text format, or a field has the wrong kind of value.
    """
    message = parse(text)
    try:
        scheduling = (message.get("ensemble_scheduling") or [{}])[0]
        return ModelConfig(
            name=_one(message, "name", ""),
            platform=_one(message, "platform", ""),
            backend=_one(message, "backend", ""),
            max_batch_size=int(_one(message, "max_batch_size", "0")),
            model_filename=_one(message, "default_model_filename", "model.onnx"),
            inputs=tuple(map(_tensor, message.get("input", ()))),
            outputs=tuple(map(_tensor, message.get("output", ()))),
            steps=tuple(map(_step, scheduling.get("step", ()))),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"not a model configuration: {error!r}") from error


def parse(text: str) -> Message:
    """Protobuf text format to nested `{field: [values]}`; scalars stay strings.

    Raises:
        ConfigError: it is not that format.
    """
    try:
        return _message(_Tokens(_tokenise(text)), None)
    except RecursionError as error:
        raise ConfigError("nested too deep") from error


class _Tokens:
    """A list of tokens with one of look-ahead. Strings come as `("string", value)`, the rest as their text."""

    def __init__(self, tokens: Iterator[tuple[str, str]]) -> None:
        self._tokens = tokens
        self.next: tuple[str, str] | None = next(tokens, None)

    def take(self) -> tuple[str, str]:
        token = self.next
        if token is None:
            raise ConfigError("the file ends in the middle")
        self.next = next(self._tokens, None)
        return token

    def skip(self, *marks: str) -> bool:
        if self.next is not None and self.next in [("mark", mark) for mark in marks]:
            self.take()
            return True
        return False


def _tokenise(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            line = text.count("\n", 0, at) + 1
            raise ConfigError(f"line {line}: unexpected {text[at]!r}")
        at = match.end()
        if match.lastgroup == "string":
            yield "string", _unquote(match.group())
        elif match.lastgroup is not None:
            yield match.lastgroup, match.group()


def _unquote(token: str) -> str:
    try:
        return str(ast.literal_eval(token))
    except (SyntaxError, ValueError) as error:  # half an escape, or a NUL
        raise ConfigError(f"no string: {token}") from error


def _message(tokens: _Tokens, close: str | None) -> Message:
    message: Message = {}
    while True:
        if close is None and tokens.next is None:
            return message
        if close is not None and tokens.skip(close):
            return message
        kind, field = tokens.take()
        if kind != "word":
            raise ConfigError(f"expected a field's name, got {field!r}")
        tokens.skip(":")
        message.setdefault(field, []).extend(_values(tokens))
        tokens.skip(",", ";")


def _values(tokens: _Tokens) -> Iterator[Any]:
    if not tokens.skip("["):
        yield _value(tokens)
        return
    while not tokens.skip("]"):
        yield _value(tokens)
        tokens.skip(",")


def _value(tokens: _Tokens) -> Any:
    kind, text = tokens.take()
    if kind == "mark":
        if text not in _OPEN:
            raise ConfigError(f"expected a value, got {text!r}")
        return _message(tokens, _OPEN[text])
    while kind == "string" and tokens.next is not None and tokens.next[0] == "string":
        text += tokens.take()[1]  # adjacent strings are one
    return text


def _one(message: Message, field: str, default: str) -> str:
    value = (message.get(field) or [default])[-1]
    if not isinstance(value, str):
        raise TypeError(f"{field} must be a scalar")
    return value


def _tensor(message: Message) -> TensorSpec:
    datatype = _one(message, "data_type", "").removeprefix("TYPE_")
    return TensorSpec(_one(message, "name", ""), datatype, tuple(int(d) for d in message.get("dims", ())))


def _step(message: Message) -> Step:
    return Step(
        model_name=_one(message, "model_name", ""),
        input_map=_map(message, "input_map"),
        output_map=_map(message, "output_map"),
    )


def _map(message: Message, field: str) -> dict[str, str]:
    return {_one(entry, "key", ""): _one(entry, "value", "") for entry in message.get(field, ())}
