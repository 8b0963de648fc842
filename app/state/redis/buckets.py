"""Rate limits of keys that all replicas share: the token buckets of `app.keys.rate_limit`, in Redis.

A bucket is one string, `gateway:rate:<name>`: the moment at which it will be full again, in microseconds of the
server's clock; it is gone once it is full. While Redis can't be reached, each replica limits on its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import redis

from app.keys.access import Buckets, Rate
from app.state.redis.calls import Calls
from app.state.redis.store import masked

_log = logging.getLogger(__name__)

PREFIX = "gateway:rate:"
PAUSE_S = 1.0
_LONGEST_MS = 1e12
# As `app.keys.rate_limit.after`; sums of moments are rounded by less than a microsecond.
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local step, span = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = tonumber(redis.call('GET', KEYS[1]) or 0)
if not (full_at <= now + span + 1) then full_at = now end
local full_then = math.max(full_at, now) + step
local wait = full_then - now - span
if wait > 1 then return {math.ceil(wait)} end
local keep_ms = math.min(math.ceil((full_then - now) / 1000) + 1, tonumber(ARGV[3]))
redis.call('SET', KEYS[1], string.format('%.3f', full_then), 'PX', string.format('%.0f', keep_ms))
return {0}
"""


class RedisBuckets:
    """See the module; used on one event loop.

    Args:
        url: `redis://` or `rediss://`.
        own: the limits while Redis can't be reached.
        on_fallback: is called for each request that they decide.
        timeout_s: seconds that connecting, and each answer, may take. After a failure, only one request a second
            tries Redis, so no other waits for it.

    Raises:
        ValueError: `url` is none.
    """

    def __init__(
        self, url: str, own: Buckets, on_fallback: Callable[[], None] = lambda: None, timeout_s: float = 0.25
    ) -> None:
        self._name = masked(url)
        self._calls = Calls(url, _TAKE, timeout_s)
        self._own = own
        self._on_fallback = on_fallback
        self._away = False
        self._again_at = 0.0

    async def take(self, name: str, rate: Rate) -> float:
        """Take one request from the bucket of that name: 0, or in how many seconds there will be one."""
        if self._tries():
            step_us = 1e6 / rate.per_s
            answer = self._calls.call([PREFIX + name], [step_us, rate.burst * step_us, _LONGEST_MS])
            try:
                (wait_us,) = await answer
            except redis.RedisError as error:
                self._lose(error)
            else:
                self._find()
                return int(wait_us) / 1e6
        self._on_fallback()
        return await self._own.take(name, rate)

    async def close(self) -> None:
        """Close the connections."""
        await self._calls.close()

    def _tries(self) -> bool:
        now = time.monotonic()
        if self._away and now < self._again_at:
            return False
        self._again_at = now + PAUSE_S
        return True

    def _lose(self, error: redis.RedisError) -> None:
        self._again_at = time.monotonic() + PAUSE_S
        if not self._away:
            self._away = True
            _log.warning("rate limits: each replica limits on its own: %s: %s", self._name, error)

    def _find(self) -> None:
        if self._away:
            self._away = False
            _log.info("rate limits: shared again: %s", self._name)
