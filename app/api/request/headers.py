"""A request's headers by name: put into a table once, read by whoever needs one."""

from __future__ import annotations

import math
from collections.abc import Mapping

from starlette.types import Scope

HEADERS = "gateway.headers"  # key of the ASGI scope
MAX_LENGTH_DIGITS = 20  # of Content-Length: 2**64 has as many


def headers_of(scope: Scope) -> Mapping[bytes, bytes]:
    """The headers by their names in lower case; of several with one name the first."""
    found: Mapping[bytes, bytes] | None = scope.get(HEADERS)
    if found is None:
        found = scope[HEADERS] = dict(reversed(tuple(scope["headers"])))
    return found


def length_of(value: bytes | None) -> float:
    """Return the body's Content-Length; infinity if it is missing or has too many digits."""
    if value is None or len(value) > MAX_LENGTH_DIGITS or not value.isdigit():
        return math.inf
    return int(value)
