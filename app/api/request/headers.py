"""A request's headers: by name, and the faults of its head that the parser allows (RFC 9112).

Two readers of a faulty head, a proxy and this gateway, could disagree about where the request goes or where it ends, so
it is refused before keys are looked at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from starlette.types import Scope

HEADERS = "gateway.headers"  # key of the ASGI scope
MAX_LENGTH_DIGITS = 20  # of Content-Length: 2**64 has as many
# RFC 3986, 3.2.2, without the comma, by which some proxies join two headers. An empty host is allowed.
_HOST = re.compile(
    rb"(?:\[[0-9A-Za-z:._~%-]+\]|(?:[0-9A-Za-z._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?"
)
# A body that is announced as no longer is given to the application in one piece.
WHOLE_BYTES = 1 << 20
_MULTIPART = re.compile(rb"\s*multipart/form-data\s*(;|$)", re.IGNORECASE).match
_LEAST_HEADERS = frozenset({b"host", b"content-length", b"transfer-encoding"})


def headers_of(scope: Scope) -> Mapping[bytes, bytes]:
    """The headers by their names in lower case; of several with one name the first."""
    found: Mapping[bytes, bytes] | None = scope.get(HEADERS)
    if found is None:
        found = scope[HEADERS] = dict(reversed(tuple(scope["headers"])))
    return found


def accept_of(scope: Scope) -> str:
    """Return the whole of `Accept`; anything is accepted where there is none."""
    headers = headers_of(scope)
    first = headers.get(b"accept", b"")
    if first and len(headers) < len(scope["headers"]):  # some come several times
        first = b",".join(value for name, value in scope["headers"] if name == b"accept")
    return first.decode("latin-1") or "*/*"


def length_of(value: bytes | None) -> float:
    """Return the body's Content-Length; infinity if it is missing or has too many digits."""
    if value is None or len(value) > MAX_LENGTH_DIGITS or not value.isdigit():
        return math.inf
    return int(value)


def comes_whole(headers: Mapping[bytes, bytes], limit: int) -> bool:
    """True if the server delivers a short body in one piece; see `app.api.server.connections`."""
    return (
        length_of(headers.get(b"content-length")) <= min(WHOLE_BYTES, limit)
        and b"content-encoding" not in headers
        and not _MULTIPART(headers.get(b"content-type", b""))
    )


def fault_of(version: str, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Return the first fault of a request's head, or None.

    Args:
        version: of HTTP, as ASGI has it.
        headers: names in lower case.
    """
    if version not in ("1.1", "1.0"):
        return f"HTTP/{version} isn't spoken here; send HTTP/1.1"
    hosts: list[bytes] = []
    for name, value in headers:
        if name not in _LEAST_HEADERS:
            continue
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length" and len(value) > MAX_LENGTH_DIGITS:
            return f"Content-Length has more than {MAX_LENGTH_DIGITS} digits"
        elif name == b"transfer-encoding" and (version == "1.0" or value.strip().lower() != b"chunked"):
            return "the only Transfer-Encoding is chunked, and only in HTTP/1.1"
    return _host_fault(version, hosts)


def _host_fault(version: str, hosts: Sequence[bytes]) -> str | None:
    if len(hosts) > 1:
        return "the request has several Host headers; send one"
    if not hosts:
        return None if version == "1.0" else "the request has no Host header"
    return None if _HOST.fullmatch(hosts[0].strip()) else "the Host header names no host"
