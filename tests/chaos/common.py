"""Shared parts of the chaos scripts: a stack that can be hurt, requests with known answers, and counters."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np
from support.servers.gateway import png, scene

NPY = {"accept": "application/x-npy"}
Send = Callable[[httpx2.AsyncClient, dict[str, str]], Awaitable[httpx2.Response]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request: how it is sent, and what of its answer must never change."""

    name: str
    send: Send
    gist: Callable[[httpx2.Response], Any]


def _boxes(response: httpx2.Response) -> Any:
    return sorted((row["class_id"], *map(round, row["box"])) for row in response.json()["detections"])


def _counts(response: httpx2.Response) -> Any:
    return [len(result["detections"]) for result in response.json()["results"]]


def _array(response: httpx2.Response) -> Any:
    return np.load(io.BytesIO(response.content), allow_pickle=False).round(3).tobytes()


def _places(response: httpx2.Response) -> Any:
    return [(row["category_id"], round(row["probability"], 5)) for row in response.json()["places"]]


def kinds() -> list[Kind]:
    """Detection at two sizes and as a batch, depth, flow, text, image and places."""
    small = png(scene(320, 320, (1, 64, 96, 32), (2, 224, 32, 32)))
    medium = png(scene(640, 480, (0, 128, 128, 64)))

    def post(path: str, **how: Any) -> Send:
        extra = how.pop("headers", {})
        return lambda client, headers: client.post(path, headers={**headers, **extra}, **how)

    batch = [("file", ("a", small)), ("file", ("b", medium))]
    pair = {"frame0": ("a", small), "frame1": ("b", small)}
    prompts = {"prompts": [f"prompt {number}" for number in range(3)]}
    return [
        Kind("detect 320", post("/v1/detect", content=small), _boxes),
        Kind("detect 640", post("/v1/detect", content=medium), _boxes),
        Kind("detect batch", post("/v1/detect", files=batch), _counts),
        Kind("depth", post("/v1/depth?branch=256&size=branch", content=small, headers=NPY), _array),
        Kind("flow", post("/v1/flow?branch=256&size=branch", files=pair, headers=NPY), _array),
        Kind("clip text", post("/v1/clip/text", json=prompts, headers=NPY), _array),
        Kind("clip image", post("/v1/clip/image", content=medium, headers=NPY), _array),
        Kind("places", post("/v1/places", content=medium), _places),
    ]  # fmt: skip


@dataclass(slots=True)
class Tally:
    """Outcomes of many requests, and milliseconds of each."""

    sent: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    hangs: list[str] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)
    good_at: list[float] = field(default_factory=list)
    good_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)

    def rows(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "right answers": self.right,
            "clean errors": dict(self.codes.most_common()),
            "connections without an answer": dict(self.broken),
            "wrong answers": len(self.wrong),
            "hangs beyond the deadline": len(self.hangs),
        }


class Load:
    """Sends requests of every kind and checks each answer against the first one of its kind, taken in peace."""

    def __init__(self, client: httpx2.AsyncClient, timeout_s: float, slack_s: float = 1.0) -> None:
        self.client = client
        self.kinds = kinds()
        self.tally = Tally()
        self._expected: dict[str, Any] = {}
        self._headers = {"x-request-timeout": str(timeout_s)}
        self._limit_s = timeout_s + slack_s

    async def learn(self) -> None:
        """The right answers."""
        for kind in self.kinds:
            response = await kind.send(self.client, self._headers)
            response.raise_for_status()
            self._expected[kind.name] = kind.gist(response)

    async def one(self, kind: Kind) -> None:
        tally, started = self.tally, time.monotonic()
        tally.sent += 1
        try:
            response = await kind.send(self.client, self._headers)
        except httpx2.TransportError as error:
            tally.broken[type(error).__name__] += 1
            response = None
        seconds = time.monotonic() - started
        if seconds > self._limit_s:
            tally.hangs.append(f"{kind.name}: {seconds:.1f} s")
        if response is not None:
            self._count_answer(kind, response, seconds)

    def _count_answer(self, kind: Kind, response: httpx2.Response, seconds: float) -> None:
        tally = self.tally
        if response.status_code != 200:
            known = response.headers.get("content-type") == "application/problem+json"
            code = response.json()["code"] if known else f"status {response.status_code} without a problem"
            tally.codes[f"{response.status_code} {code}"] += 1
            if response.status_code >= 500 and response.status_code not in (502, 503, 504):
                tally.wrong.append(f"{kind.name}: {response.status_code} {response.text[:200]}")
            if response.status_code == 429:
                tally.refused_ms.append(seconds * 1000)
        elif kind.name == "detect batch" and response.json()["errors"]:
            tally.codes["200 with an error in the batch"] += 1
        elif kind.gist(response) == self._expected[kind.name]:
            tally.right += 1
            tally.good_at.append(time.monotonic())
            tally.good_ms.append(seconds * 1000)
        else:
            tally.wrong.append(f"{kind.name}: {response.text[:200]}")

    async def forever(self, stop: asyncio.Event, offset: int) -> None:
        """One after another, until it is told to stop."""
        number = offset
        while not stop.is_set():
            await self.one(self.kinds[number % len(self.kinds)])
            number += 1


@contextlib.asynccontextmanager
async def client(url: str, connections: int = 256) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that never gives up by itself before a minute is over."""
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as made:
        yield made


class Cable:
    """A TCP connection that can be cut: forwards a port to another until `cut`, and again afterwards."""

    def __init__(self, port: int, target: int) -> None:
        self._port, self._target = port, target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def plug(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self._port)

    async def cut(self) -> None:
        """Every connection ends at once, and nobody can connect."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            self._server = None

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, forth}
        await asyncio.gather(self._pump(reader, forth), self._pump(back, writer), return_exceptions=True)
        self._writers -= {writer, forth}

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 18):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


def percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, share)) if values else float("nan")
