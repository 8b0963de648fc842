"""The text of a query: bounded in length and number, UTF-8, and what is wrong with its names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from app.errors import InvalidParameter
from app.hints import did_you_mean

MAX_BYTES = 16384
MAX_PARAMETERS = 1024


def check_query(text: bytes) -> None:
    """Refuse a query that is longer than any of ours, before it is taken apart.

    Raises:
        InvalidParameter: it has too many bytes or too many parameters.
    """
    if len(text) > MAX_BYTES:
        raise InvalidParameter(f"the query has {len(text)} bytes; the limit is {MAX_BYTES}")
    if text.count(b"&") >= MAX_PARAMETERS:
        raise InvalidParameter(f"the query has more than {MAX_PARAMETERS} parameters")


def decoded(text: bytes) -> str:
    """The query as text; bytes that are not percent-encoded are UTF-8 as well.

    Raises:
        InvalidParameter: it is not UTF-8.
    """
    try:
        unquote_to_bytes(text).decode("utf-8")
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidParameter("the query is not UTF-8") from error


def with_hint(fault: dict[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """A fault of pydantic; for an unknown parameter, with the one that was probably meant."""
    if fault["type"] != "extra_forbidden":
        return fault
    return {**fault, "msg": f"no such parameter{did_you_mean(str(fault['loc'][-1]), known)}"}
