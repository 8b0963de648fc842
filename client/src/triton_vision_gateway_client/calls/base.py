"""A call: the request as data, and the function that reads its answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar

from triton_vision_gateway_client.errors import UnexpectedAnswer
from triton_vision_gateway_client.media import Upload
from triton_vision_gateway_client.retries import Repeat

T = TypeVar("T")
JSON = "application/json"
NPY = "application/x-npy"
NDJSON = "application/x-ndjson"


class Default:
    """The type of `DEFAULT`."""


DEFAULT: Final = Default()  # the client's own timeout
Timeout: TypeAlias = float | Default | None
Query: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Received:
    """A complete answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """Return the JSON document.

        Raises:
            UnexpectedAnswer: it is none.
        """
        kind = self.headers.get("content-type", "no content type")
        if kind.startswith(NDJSON):
            hint = "Use the call for videos, such as detect_video."
            raise UnexpectedAnswer("the picture is a video, and was answered as one", self.status, hint)
        try:
            return json.loads(self.content)
        except ValueError as error:
            raise UnexpectedAnswer(f"the answer is no JSON ({kind})", self.status) from error

    def object(self) -> dict[str, Any]:
        """Return the JSON object.

        Raises:
            UnexpectedAnswer: it is none.
        """
        document = self.json()
        if not isinstance(document, dict):
            raise UnexpectedAnswer("the answer is no JSON object", self.status)
        return document


@dataclass(frozen=True, slots=True)
class Raw:
    """A body of bytes."""

    content: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a form."""

    name: str
    file_name: str
    content: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart body of files and texts."""

    files: tuple[Part, ...]
    texts: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Streamed:
    """A video that is read while it is sent; with texts, it is a part `file` of a form."""

    upload: Upload
    texts: Mapping[str, str] = field(default_factory=dict)


Body: TypeAlias = Raw | Form | Streamed


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request, and how it may be treated.

    `accept` are the media types of the answer. `good` are the statuses that aren't errors. `gone_is_done`: 404 after a
    lost attempt means that this attempt has been carried out. `open_ended`: the answer comes in pieces for as long as
    the work takes, so only silence is limited unless the caller gives a timeout.
    """

    method: str
    path: str
    query: Query = ()
    accept: str = JSON
    body: Body | None = None
    repeat: Repeat = Repeat.ALWAYS
    timeout: Timeout = DEFAULT
    good: tuple[int, ...] = (200, 202, 204)
    gone_is_done: bool = False
    open_ended: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def sendable_again(self) -> bool:
        """False if the body was a stream that can't be rewound."""
        return not isinstance(self.body, Streamed) or self.body.upload.repeatable


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """A request and the function that reads its answer."""

    request: Request
    parse: Callable[[Received], T]


def posted(
    path: str,
    body: Raw | Form,
    options: Mapping[str, object],
    accept: str = JSON,
    repeat: Repeat = Repeat.ALWAYS,
    **query: object,
) -> Request:
    """Return a POST whose query are the options and `query`, see `query_of`."""
    return Request(
        method="POST",
        path=path,
        query=query_of(options, **query),
        accept=accept,
        body=body,
        repeat=repeat,
        timeout=timeout_in(options),
    )


def query_of(options: Mapping[str, object], **more: object) -> Query:
    """Return query parameters. Values that are None aren't sent; a list is repeated."""
    pairs: list[tuple[str, str]] = []
    for name, value in {**options, **more}.items():
        if value is None or name == "timeout":
            continue
        if isinstance(value, Iterable) and not isinstance(value, str):
            pairs += [(name, text_of(one)) for one in value]
        else:
            pairs.append((name, text_of(value)))
    return tuple(pairs)


def text_of(value: object) -> str:
    """Return a parameter as the service reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(float(value)) if isinstance(value, float) else str(value)


def timeout_in(options: Mapping[str, object]) -> Timeout:
    """Return the option `timeout`.

    Raises:
        ValueError: it isn't positive.
        TypeError: it is no number.
    """
    if "timeout" not in options:
        return DEFAULT
    timeout = options["timeout"]
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout is a number of seconds or None, not {timeout!r}")
    if not timeout > 0:
        raise ValueError(f"timeout is a positive number of seconds, not {timeout!r}")
    return float(timeout)
