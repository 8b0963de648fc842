"""Calls of one Lua script from an event loop: in order, and in batches.

What is called while an answer is on its way goes out together afterwards, so that many requests at once need few round
trips. All scripts must be safe to run twice, since a batch is sent again when its connection broke.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence

import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

Argument = str | bytes | int | float
Reply = Sequence[int | bytes]
_Waiting = tuple[tuple[Argument, ...], asyncio.Future[Reply]]


class Calls:
    """Calls of `script`; connections are made when needed.

    Args:
        url: `redis://` or `rediss://`.
        script: in Lua; it answers with a list.
        timeout_s: seconds that connecting, and each answer, may take.

    Raises:
        ValueError: `url` is none.
    """

    def __init__(self, url: str, script: str, timeout_s: float) -> None:
        self.client: Redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # A pooled connection may have broken since its last use: retry once, at once, on a new one.
            retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
            protocol=2,
        )
        self._script = script
        self._sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._waiting: list[_Waiting] = []
        self._sending: asyncio.Task[None] | None = None

    def call(self, keys: Sequence[str], arguments: Sequence[Argument]) -> asyncio.Future[Reply]:
        """Send the call as soon as those before it are answered.

        Returns:
            The script's answer; `redis.RedisError` if it failed or could not be sent. It may be left alone.
        """
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_seen)
        self._waiting.append(((len(keys), *keys, *arguments), answer))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        return answer

    async def close(self) -> None:
        """Wait for the calls that were made, and close the connections."""
        if self._sending is not None:
            await self._sending
        await self.client.aclose()

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._send(batch)
        finally:
            self._sending = None

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        try:
            replies = await self._replies([words for words, _ in batch])
        except (redis.RedisError, OSError) as error:
            replies = [error] * len(batch)
        for (_, answer), reply in zip(batch, replies, strict=True):
            if answer.done():  # its caller has left
                continue
            if isinstance(reply, BaseException):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)

    async def _replies(self, calls: Sequence[tuple[Argument, ...]]) -> Sequence[Reply | Exception]:
        replies = await self._pipeline(calls)
        if any(isinstance(reply, redis.exceptions.NoScriptError) for reply in replies):
            await self.client.script_load(self._script)  # a new server, or one that was restarted
            replies = await self._pipeline(calls)
        return replies

    async def _pipeline(self, calls: Sequence[tuple[Argument, ...]]) -> Sequence[Reply | Exception]:
        async with self.client.pipeline(transaction=False) as pipe:
            for words in calls:
                pipe.execute_command("EVALSHA", self._sha, *words)
            replies: list[Reply | Exception] = await pipe.execute(raise_on_error=False)
        return replies


def _seen(answer: asyncio.Future[Reply]) -> None:
    """Take note of a failure, so that asyncio doesn't report a call whose answer nobody waits for."""
    with contextlib.suppress(asyncio.CancelledError):
        answer.exception()
