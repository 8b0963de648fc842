"""Sessions in Redis, which several workers and replicas share.

A session is one string, `gateway:session:<id>`: 8 bytes of token, then the value. Redis ends it by itself (PX), and a
script replaces it only where the token is still the one that the writer saw.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.errors import SessionsUnavailable
from app.state.base import Snapshot

PREFIX = "gateway:session:"
TOKEN_BYTES = 8
# The first comparison makes the script safe to send twice: the client does so when the answer got lost.
_REPLACE = """
local held = redis.call('GETRANGE', KEYS[1], 0, 7)
if held == string.sub(ARGV[2], 1, 8) then return 1 end
if held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


def masked(url: str) -> str:
    """`url` for people: scheme, host, port and database; whatever else it has may be secret."""
    parts = urlsplit(url)
    secret = "***@" if "@" in parts.netloc else ""
    return f"{parts.scheme}://{secret}{parts.netloc.rpartition('@')[2]}{parts.path}"


def unavailable(name: str, error: Exception) -> SessionsUnavailable:
    """Return the refusal of a request whose session can't be reached; `name` is that of the server."""
    return SessionsUnavailable(
        f"{name}: {error}",
        hint="Retry, or send frames without a session, which are still served. Tell the operator to check the "
        "Redis that GATEWAY_SESSION_STORE names.",
        retry_after=1,
    )


class RedisStore:
    """See the module. Connections are made when needed, and made again when they broke.

    Args:
        url: `redis://` or `rediss://` (TLS), with user, password and database where needed.
        ttl_s: seconds that an idle session lives.
        timeout_s: seconds that connecting, and each answer, may take.

    Raises:
        ValueError: `url` is none.
    """

    def __init__(self, url: str, ttl_s: float, timeout_s: float = 1.0) -> None:
        self.name = masked(url)
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # A pooled connection may have broken since its last use: retry once, at once, on a new one.
            retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
            protocol=2,  # the same answers from every server since Redis 2.6, and one round trip less to connect
        )
        self._replace = self._client.register_script(_REPLACE)

    def load(self, session_id: str) -> Snapshot | None:
        with self._translated_errors():
            held = self._client.get(PREFIX + session_id)
        if not isinstance(held, bytes):
            return None
        return Snapshot(held[:TOKEN_BYTES], held[TOKEN_BYTES:])

    def save(self, session_id: str, value: bytes, expected: bytes | None) -> bool:
        token = os.urandom(TOKEN_BYTES)
        arguments: list[bytes | int] = [expected or b"", token + value, self._ttl_ms]
        with self._translated_errors():
            return bool(self._replace([PREFIX + session_id], arguments))

    def delete(self, session_id: str) -> bool:
        with self._translated_errors():
            return bool(self._client.delete(PREFIX + session_id))

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise unavailable(self.name, error) from error
