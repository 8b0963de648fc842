"""The order of a session's requests over all replicas and workers, see `app.sessions.session_order`.

Per session there are three keys, which exist only while requests are in flight:

- `gateway:order:{<session>}`: the requests by timestamp, then arrival
- `gateway:order:{<session>}:leases`: until when each is believed to be alive
- `gateway:order:{<session>}:state`: arrival by request, which requests wait, and which one is served

A request is renewed while its process lives. That of a dead process leaves when its lease ends, by the next call of any
other request of the session. All moments are of the server's clock. A request that waits is called by the answer of the
request before it if both have the same process, else by a message; a lost message costs at most one renewal.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import redis

from app.deadline import Deadline
from app.errors import DeadlineExceeded, Overloaded, SessionsUnavailable
from app.state.redis.calls import Argument, Calls, Reply
from app.state.redis.store import masked, unavailable

PREFIX = "gateway:order:"
CHANNEL = "gateway:turns:"
_RENEWALS = 5  # in the time of a lease
_FULL, _LOST, _SERVED = -2, -1, 1
_UNLIMITED = 1 << 30
# Safe to run twice. `status`: see the constants above; 0: in the line. `called`: a request of the same process.
_STEP = """
local order, leases, state = KEYS[1], KEYS[2], KEYS[3]
local step, token, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function leave(gone)
  local arrival = redis.call('HGET', state, gone)
  if not arrival then return end
  redis.call('ZREM', order, arrival .. gone)
  redis.call('ZREM', leases, gone)
  redis.call('HDEL', state, gone, gone .. ':waits')
  if redis.call('HGET', state, 'served') == gone then redis.call('HDEL', state, 'served') end
end

local known = redis.call('HEXISTS', state, token) == 1
if known and step ~= 'leave' then redis.call('ZADD', leases, now + lease_ms, token) end
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now)) do leave(gone) end

if step == 'join' and not known then
  if redis.call('ZCARD', order) >= tonumber(ARGV[5]) then return {-2, ''} end
  local arrival = string.format('%016d', redis.call('HINCRBY', state, 'arrivals', 1))
  redis.call('HSET', state, token, arrival)
  redis.call('ZADD', order, ARGV[4], arrival .. token)
  redis.call('ZADD', leases, now + lease_ms, token)
  known = true
elseif step == 'come' and known then
  redis.call('HSET', state, token .. ':waits', 1)
elseif step == 'leave' then
  leave(token)
end

local called = ''
local served = redis.call('HGET', state, 'served')
if not served then
  local head = redis.call('ZRANGE', order, 0, 0)[1]
  local first = head and string.sub(head, 17)
  if first and redis.call('HEXISTS', state, first .. ':waits') == 1 then
    redis.call('HSET', state, 'served', first)
    served = first
    local holder = string.sub(first, 1, 16)
    if holder == string.sub(token, 1, 16) then
      called = first
    else
      redis.call('PUBLISH', 'gateway:turns:' .. holder, first)
    end
  end
end

if redis.call('ZCARD', order) == 0 then
  redis.call('DEL', order, leases, state)
elseif step ~= 'leave' then
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, 2 * lease_ms) end
end
if not known then return {-1, called} end
return {served == token and 1 or 0, called}
"""


class RedisTurn:
    """One request's place in the line of its session."""

    __slots__ = ("_order", "called", "error", "keys", "score", "session_id", "token", "waits")

    def __init__(self, order: RedisOrder, key: str, token: str, score: float) -> None:
        self._order = order
        self.session_id = key.rpartition("/")[2]
        name = f"{PREFIX}{{{key}}}"
        self.keys = (name, f"{name}:leases", f"{name}:state")
        self.token = token
        self.score = score
        self.waits = False
        self.called = asyncio.Event()
        self.error: SessionsUnavailable | None = None

    async def come(self, deadline: Deadline) -> None:
        """Wait until it is this request's turn.

        Raises:
            DeadlineExceeded: those before it took too long (stage `queue`).
            SessionsUnavailable: Redis can't be reached.
        """
        self.waits = True
        try:
            async with asyncio.timeout(deadline.remaining()):
                await self._order.come(self)
                await self.called.wait()
        except TimeoutError as error:
            raise DeadlineExceeded("queue") from error
        if self.error is not None:
            raise self.error


class RedisOrder:
    """See the module; used on one event loop.

    Args:
        url: `redis://` or `rediss://`.
        most: requests of one session in flight, over all replicas.
        lease_s: seconds after which a request of a dead process leaves the line.
        timeout_s: seconds that connecting, and each answer, may take.

    Raises:
        ValueError: `url` is none.
    """

    def __init__(self, url: str, most: int, lease_s: float, timeout_s: float = 1.0) -> None:
        self._name = masked(url)
        self._calls = Calls(url, _STEP, timeout_s)
        self._most = most
        self._lease_s = lease_s
        self._holder = secrets.token_hex(8)
        self._numbers = count(1)
        self._turns: dict[str, RedisTurn] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def join(self, key: str, timestamp: float | None) -> AsyncIterator[RedisTurn]:
        """Take a place in the line: by `timestamp` in seconds where the caller gives one, else as they arrive.

        Raises:
            Overloaded: too many requests of this session are in flight.
            SessionsUnavailable: Redis can't be reached.
        """
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._renew()), asyncio.create_task(self._listen())]
        score = 0.0 if timestamp is None else timestamp
        turn = RedisTurn(self, key, f"{self._holder}:{next(self._numbers)}", score)
        self._turns[turn.token] = turn
        try:
            if await self._join(turn, self._most) == _FULL:
                raise Overloaded(
                    f"session {turn.session_id} has {self._most} requests in flight", retry_after=1
                )
            yield turn
        finally:
            del self._turns[turn.token]
            self._send(turn, "leave").add_done_callback(self._left)

    async def come(self, turn: RedisTurn) -> None:
        """Say that a request waits, and call it if it is the first. One that is no longer known joins again."""
        status = await self._step(turn, "come")
        if status == _LOST and turn.token in self._turns:
            await self._join(turn, _UNLIMITED)
            status = await self._step(turn, "come")
        if status == _SERVED:
            turn.called.set()

    async def close(self) -> None:
        """Stop renewing, and close the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._calls.close()

    async def _join(self, turn: RedisTurn, most: int) -> int:
        return await self._step(turn, "join", repr(turn.score), most)

    async def _step(self, turn: RedisTurn, step: str, *more: Argument) -> int:
        try:
            status, called = await self._send(turn, step, *more)
        except redis.RedisError as error:
            raise unavailable(self._name, error) from error
        self._call(called)
        return int(status)

    def _send(self, turn: RedisTurn, step: str, *more: Argument) -> asyncio.Future[Reply]:
        return self._calls.call(turn.keys, (step, turn.token, round(self._lease_s * 1000), *more))

    def _left(self, answer: asyncio.Future[Reply]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._call(answer.result()[1])

    def _call(self, token: int | bytes) -> None:
        """Wake the request of this process whose turn it is, if the token is one's."""
        turn = self._turns.get(token.decode()) if isinstance(token, bytes) else None
        if turn is not None:
            turn.called.set()

    async def _renew(self) -> None:
        """Renew all requests of this process while it lives; ask again for those that wait."""
        while True:
            await asyncio.sleep(self._lease_s / _RENEWALS)
            await self._renew_all()

    async def _renew_all(self) -> None:
        await asyncio.gather(*(self._renewed(turn) for turn in list(self._turns.values())))

    async def _renewed(self, turn: RedisTurn) -> None:
        try:
            if turn.waits and not turn.called.is_set():
                await self.come(turn)
            elif (
                await self._step(turn, "renew") == _LOST
                and turn.token in self._turns
                and not turn.called.is_set()
            ):
                await self._join(turn, _UNLIMITED)
        except SessionsUnavailable as error:
            if turn.waits and not turn.called.is_set():
                turn.error = error
                turn.called.set()

    async def _listen(self) -> None:
        """Call the requests of this process that those of other processes have let go."""
        while True:
            with contextlib.suppress(redis.RedisError, OSError):
                async with self._calls.client.pubsub(ignore_subscribe_messages=True) as messages:
                    await messages.subscribe(f"{CHANNEL}{self._holder}")
                    await self._renew_all()  # what was called before is told once more
                    while True:
                        message = await messages.get_message(timeout=self._lease_s)
                        if message is not None:
                            self._call(message["data"])
            await asyncio.sleep(self._lease_s / _RENEWALS)
