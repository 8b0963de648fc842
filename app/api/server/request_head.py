"""Finds requests whose head breaks RFC 9112 in ways that the parser allows, before keys are looked at.

Two readers of such a head, a proxy and this gateway, could disagree about where the request goes or where it ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from app.api.request.headers import MAX_LENGTH_DIGITS

# RFC 3986, 3.2.2, without the comma, by which some proxies join two headers. An empty host is allowed.
_HOST = re.compile(
    rb"(?:\[[0-9A-Za-z:._~%-]+\]|(?:[0-9A-Za-z._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?"
)
_LEAST_HEADERS = frozenset({b"host", b"content-length", b"transfer-encoding"})


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
