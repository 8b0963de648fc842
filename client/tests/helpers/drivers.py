"""Both clients behind one set of plain methods, so that every test runs with each."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from triton_vision_gateway_client import AsyncClient, AsyncJobHandle, AsyncVideoFrames, Client


class SyncDriver:
    """`Client` as it is."""

    def __init__(self, url: str, **arguments: Any) -> None:
        self.client = Client(url, **arguments)

    def close(self) -> None:
        self.client.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)


class AsyncDriver:
    """`AsyncClient`, each call run to its end on one event loop; videos and events become lists."""

    def __init__(self, url: str, **arguments: Any) -> None:
        self._runner = asyncio.Runner()
        self.client = AsyncClient(url, **arguments)

    def close(self) -> None:
        self._runner.run(self.client.close())
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        return _Method(self._runner, getattr(self.client, name))


class _Method:
    def __init__(self, runner: asyncio.Runner, method: Any) -> None:
        self._runner = runner
        self._method = method

    def __call__(self, *positional: Any, **named: Any) -> Any:
        found = self._method(*positional, **named)
        if isinstance(found, AsyncVideoFrames):
            return _Video(self._runner, found)
        if inspect.isasyncgen(found):
            return self._runner.run(_listed(found))
        value = self._runner.run(found)
        return _Job(self._runner, value) if isinstance(value, AsyncJobHandle) else value


class _Video:
    def __init__(self, runner: asyncio.Runner, frames: AsyncVideoFrames[Any]) -> None:
        self._runner = runner
        self._frames = frames

    def __enter__(self) -> _Video:
        self._runner.run(self._frames.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._frames.close())

    def __iter__(self) -> _Video:
        return self

    def __next__(self) -> Any:
        try:
            return self._runner.run(self._next())
        except _Over:
            raise StopIteration from None

    async def _next(self) -> Any:
        try:
            return await anext(self._frames)
        except StopAsyncIteration:
            raise _Over from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frames, name)


class _Over(Exception):  # a coroutine can't raise StopIteration
    pass


class _Job:
    def __init__(self, runner: asyncio.Runner, job: AsyncJobHandle) -> None:
        self._runner = runner
        self._job = job

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._job, name)
        return _Method(self._runner, found) if callable(found) else found


async def _listed(items: Any) -> list[Any]:
    return [item async for item in items]
