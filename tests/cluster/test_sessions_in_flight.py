"""Frames of sessions in flight on several gateways behind a balancer: tracked in their order, as by one process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from support.servers.gateway import png, scene, server
from support.servers.haproxy_server import HAProxy
from support.servers.redis_server import RedisServer
from support.waiting import PATIENCE_S

FRAMES = 120
IN_FLIGHT = 8
# Patches come and go, so that ids depend on which frame was before which.
BODIES = [
    png(scene(320, 320, *[(n % 3, 32 * n, 32 * n, 32) for n in range(8) if (step // (n + 1)) % 2 == 0]))
    for step in range(FRAMES)
]


@dataclass(frozen=True, slots=True)
class Service:
    """Three gateways with one Redis."""

    redis: RedisServer
    urls: Sequence[str]
    pids: Sequence[int]

    def waiting(self, session: str) -> tuple[int, int]:
        """Requests of a session that are in flight, and how many of them wait for their turn."""
        with redis.Redis.from_url(self.redis.url) as beside:
            state = beside.hgetall(f"gateway:order:{{{session}}}:state")
            return beside.zcard(f"gateway:order:{{{session}}}"), sum(f.endswith(b":waits") for f in state)


@pytest.fixture(params=[PATIENCE_S])
def service(request: pytest.FixtureRequest, repository: Path, tmp_path: Path) -> Iterator[Service]:
    """Gateways as processes of their own; the parameter is the lease of the frames in seconds."""
    given: dict[str, Any] = {"session_lease_s": request.param}
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(RedisServer(tmp_path / "redis"))
        started = [
            stack.enter_context(server(repository, tmp_path / f"{n}.log", session_store=store.url, **given))
            for n in range(3)
        ]
        yield Service(store, [str(http.base_url) for http, _ in started], [pid for _, pid in started])


def _balanced(service: Service, folder: Path, count: int) -> HAProxy:
    folder.mkdir()
    ports = [httpx2.URL(url).port for url in service.urls[:count]]
    return HAProxy(folder, [port for port in ports if port is not None])


async def _eventually(true: Callable[[], bool]) -> None:
    """Return once it is true: seldom asked, since Redis answers."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.05)


class Camera:
    """A client of one session with so many connections, each of which has one frame in flight at most."""

    def __init__(self, service: Service, url: str, session: str, connections: int = 1) -> None:
        self._service = service
        self._session = session
        one = httpx2.Limits(max_connections=1)
        self._all = [
            httpx2.AsyncClient(base_url=url, timeout=PATIENCE_S, limits=one) for _ in range(connections)
        ]
        self._free: asyncio.Queue[httpx2.AsyncClient] = asyncio.Queue()

    async def __aenter__(self) -> Camera:
        for http in self._all:
            await http.get("/v1/branches")  # opens the connection
            self._free.put_nowait(http)
        return self

    async def __aexit__(self, *_: object) -> None:
        for http in self._all:
            await http.aclose()

    async def begin(self, step: int, content: Any = None) -> asyncio.Task[httpx2.Response]:
        """Send a frame as soon as a connection is free."""
        http = await self._free.get()

        async def post() -> httpx2.Response:
            url = f"/v1/detect?session={self._session}&timestamp={step / 10}"
            try:
                return await http.post(url, content=BODIES[step] if content is None else content)
            finally:
                self._free.put_nowait(http)

        return asyncio.create_task(post())

    async def film(self, frames: int) -> list[httpx2.Response]:
        """Send the frames in order; the first isn't complete before those after it have arrived."""

        async def first() -> AsyncIterator[bytes]:
            await _eventually(lambda: self._service.waiting(self._session)[0] == len(self._all))
            yield BODIES[0]

        sent = [await self.begin(step, first() if step == 0 else None) for step in range(frames)]
        return list(await asyncio.gather(*sent))

    async def shuffled(self, steps: Sequence[int]) -> list[httpx2.Response]:
        """Send the first frame, then the others in any order; the first isn't complete before all have arrived."""

        async def first() -> AsyncIterator[bytes]:
            await _eventually(lambda: self._service.waiting(self._session)[0] == len(steps))
            yield BODIES[steps[0]]

        sent = {steps[0]: await self.begin(steps[0], first())}
        await _eventually(lambda: self._service.waiting(self._session)[0] == 1)
        for step in random.sample(steps[1:], len(steps) - 1):
            sent[step] = await self.begin(step)
        answers = [await sent[step] for step in steps]
        await _eventually(lambda: self._service.waiting(self._session)[0] == 0)
        return answers


def _tracks(answers: Sequence[httpx2.Response]) -> list[Any]:
    """Boxes and ids of each frame, all of which were answered."""
    assert [answer.status_code for answer in answers] == [200] * len(answers), [
        answer.text for answer in answers if answer.status_code != 200
    ][:3]
    return [[(row["box"], row["track_id"]) for row in answer.json()["detections"]] for answer in answers]


def test_frames_in_flight_on_several_gateways_are_tracked_as_by_one(service: Service, tmp_path: Path) -> None:
    """Eight at once over two and over three gateways, and twenty sessions at once: no conflict, and the same tracks."""

    async def film(
        url: str, session: str, frames: int, connections: int = IN_FLIGHT
    ) -> list[httpx2.Response]:
        async with Camera(service, url, session, connections) as camera:
            return await camera.film(frames)

    async def shuffled(url: str, session: str) -> list[httpx2.Response]:
        async with Camera(service, url, session, IN_FLIGHT) as camera:
            return [
                answer
                for first in range(0, 24, IN_FLIGHT)
                for answer in await camera.shuffled(range(first, first + IN_FLIGHT))
            ]

    async def scenario(two: str, three: str) -> None:
        expected = _tracks(await film(service.urls[0], "alone", FRAMES, 1))
        for url, gateways in ((two, 2), (three, 3)):
            answers = await film(url, f"over-{gateways}", FRAMES)
            assert _tracks(answers) == expected
            assert [answer.json()["session"]["frame"] for answer in answers] == list(range(1, FRAMES + 1))
            assert len({answer.headers["x-served-by"] for answer in answers}) == gateways
        for answers in await asyncio.gather(*(shuffled(three, f"many-{n}") for n in range(20))):
            assert _tracks(answers) == expected[:24]

    with _balanced(service, tmp_path / "two", 2) as two, _balanced(service, tmp_path / "three", 3) as three:
        asyncio.run(scenario(f"http://127.0.0.1:{two.port}", f"http://127.0.0.1:{three.port}"))


@pytest.mark.parametrize("service", [5.0], indirect=True)
def test_a_killed_gateway_holds_a_session_up_only_for_its_lease(service: Service) -> None:
    """Frames behind one that was on the killed gateway wait for it, and then go on in their order."""

    async def scenario() -> None:
        dead = asyncio.Event()

        async def unfinished() -> AsyncIterator[bytes]:
            await dead.wait()
            yield BODIES[1]

        killed, *others = (Camera(service, url, "a", IN_FLIGHT) for url in service.urls)
        async with killed, others[0], others[1]:
            first = await killed.begin(1, unfinished())
            await _eventually(lambda: service.waiting("a") == (1, 0))
            later = [await others[step % 2].begin(step) for step in range(2, 9)]
            await _eventually(lambda: service.waiting("a") == (8, 7))
            os.kill(service.pids[0], signal.SIGKILL)
            dead.set()
            with pytest.raises(httpx2.TransportError):
                await first
            answers = await asyncio.gather(*later)
            assert [answer.json()["session"]["frame"] for answer in answers] == list(range(1, 8))
            await _eventually(lambda: service.waiting("a") == (0, 0))
            answer = await (await others[0].begin(9))
            assert answer.json()["session"]["frame"] == 8

    asyncio.run(scenario())
