"""Headers that tell a browser what it may do with an answer; CORS, which is off unless origins are named."""

from __future__ import annotations

import functools
from typing import Any

# What isn't a page runs nothing, whatever a browser takes it for. A page may load its own scripts, and nothing may
# put either into a frame. An answer's own header goes before these.
_CSP_PAGE = b"frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
_CSP_DATA = b"default-src 'none'; frame-ancestors 'none'"
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),  # what is answered belongs to who asked, and changes with the models
)
SECURITY = {
    name.decode(): value.decode() for name, value in (*_ALWAYS, (b"content-security-policy", _CSP_DATA))
}


@functools.lru_cache(maxsize=256)  # answers have few sets of headers
def lacking(names: tuple[bytes, ...], content_type: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that an answer with headers of these names and of this type lacks."""
    said = {name.lower() for name in names}
    page = content_type.startswith(b"text/html")
    wanted = (*_ALWAYS, (b"content-security-policy", _CSP_PAGE if page else _CSP_DATA))
    return tuple(header for header in wanted if header[0] not in said)


def cors(origins: str) -> dict[str, Any]:
    """Return the arguments of Starlette's CORSMiddleware for origins separated by commas.

    Keys travel in headers, never in cookies, so credentials stay off: no other site can spend a visitor's access.
    """
    named = [origin.strip() for origin in origins.split(",")]
    return {
        "allow_origins": named,
        # A public page may reach a gateway in a private network only if its origin is named.
        "allow_private_network": "*" not in named,
        "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
        "allow_headers": [
            "Authorization", "X-API-Key", "Content-Type", "X-Request-Timeout", "X-Request-Id",
            "traceparent", "tracestate",
        ],
        "expose_headers": [
            "X-Provenance", "X-Depth-Min", "X-Depth-Max", "X-Request-Id", "Server-Timing", "Retry-After", "Location",
            "Content-Disposition", "WWW-Authenticate", "Link", "Idempotency-Replayed",
        ],
        "max_age": 600,
    }  # fmt: skip
