"""Several frames of one session in flight: its tracker has them in order, and nobody waits beyond its time."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient
from support.models.engines import Arrays, colour_detector
from support.models.repository import CATALOGUE
from support.servers.gateway import client, png, scene, server
from support.waiting import PATIENCE_S

from app.engine.fake import FakeEngine
from app.main import create_app
from app.settings import Settings

FRAMES = 24
IN_FLIGHT = 4
# Patches come and go, so that ids depend on which frame was before which.
BODIES = [
    png(scene(320, 320, *[(n % 3, 32 * n, 32 * n, 32) for n in range(8) if (step // (n + 1)) % 2 == 0]))
    for step in range(FRAMES)
]
Post = Callable[[int], Awaitable[Any]]


async def _all(post: Post, in_flight: int) -> list[dict[str, Any]]:
    """Every frame, so many at once, begun in order; the answers in order."""
    places = asyncio.Semaphore(in_flight)

    async def one(step: int) -> dict[str, Any]:
        async with places:
            answered = await post(step)
        assert answered.status_code == 200, answered.text
        document: dict[str, Any] = answered.json()
        return document

    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(one(step)) for step in range(FRAMES)]
    return [task.result() for task in started]


def _poster(http: httpx2.AsyncClient, session: str, query: str = "&timestamp={at}") -> Post:
    async def post(step: int) -> Any:
        url = f"/v1/detect?session={session}{query.format(at=step / 10)}"
        return await http.post(url, content=BODIES[step])

    return post


def _tracks(answers: list[dict[str, Any]]) -> list[list[Any]]:
    return [[(row["box"], row["track_id"]) for row in answer["detections"]] for answer in answers]


def test_frames_in_flight_are_tracked_as_one_after_the_other(repository: Path) -> None:
    """Inference overlaps and ends in another order than it began: no conflict, and the same ids."""
    calls, most = itertools.count(), 0
    all_in_flight = threading.Barrier(IN_FLIGHT, timeout=PATIENCE_S)
    inside = set[int]()

    def uneven(inputs: Arrays, outputs: Arrays) -> None:
        nonlocal most
        number = next(calls)
        inside.add(number)
        most = max(most, len(inside))
        if FRAMES <= number < FRAMES + IN_FLIGHT:
            all_in_flight.wait()
        time.sleep((0.03, 0.0, 0.02, 0.01)[number % 4])
        colour_detector(inputs, outputs)
        inside.discard(number)

    async def scenario() -> None:
        engine = FakeEngine(CATALOGUE, {"yolo11n_320": uneven}, leases=IN_FLIGHT)
        app = create_app(Settings(repository=repository, variant="n"), lambda *_: engine)
        transport = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://gateway") as http,
        ):
            alone = await _all(_poster(http, "alone"), 1)
            assert most == 1
            together = await _all(_poster(http, "together"), IN_FLIGHT)
            assert most == IN_FLIGHT
        assert _tracks(together) == _tracks(alone)
        assert [answer["session"]["frame"] for answer in together] == list(range(1, FRAMES + 1))

    asyncio.run(scenario())


def test_a_real_server_tracks_frames_in_flight_in_order(repository: Path, tmp_path: Path) -> None:
    """Over four connections: with timestamps the ids of one at a time, without them every frame counts once."""

    async def scenario(base: str) -> None:
        async with httpx2.AsyncClient(base_url=base, timeout=PATIENCE_S) as http:
            alone = await _all(_poster(http, "alone"), 1)
            together = await _all(_poster(http, "together"), IN_FLIGHT)
            clocked = await _all(_poster(http, "clocked", ""), IN_FLIGHT)
        assert _tracks(together) == _tracks(alone)
        assert sorted(answer["session"]["frame"] for answer in clocked) == list(range(1, FRAMES + 1))

    with server(repository, tmp_path / "log") as (http, _):
        asyncio.run(scenario(str(http.base_url)))


class Held:
    """A detector whose first frame stays inside until it is let go."""

    def __init__(self) -> None:
        self.inside, self.leave = threading.Event(), threading.Event()
        self._calls = itertools.count()

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        if next(self._calls) == 0:
            self.inside.set()
            assert self.leave.wait(PATIENCE_S)
        colour_detector(inputs, outputs)


def _post(gateway: TestClient, at: int, **headers: str) -> Any:
    return gateway.post(f"/v1/detect?session=a&timestamp={at}", content=BODIES[0], headers=headers)


def test_waiting_for_an_earlier_frame_ends_with_the_deadline(repository: Path) -> None:
    """504 in stage `queue` for the one that gave up; neither the one before it nor the next is hurt."""
    held = Held()
    engine = FakeEngine(CATALOGUE, {"yolo11n_320": held})
    with client(repository, lambda *_: engine) as gateway, ThreadPoolExecutor(1) as other:
        first = other.submit(_post, gateway, 1)
        try:
            assert held.inside.wait(PATIENCE_S)
            for seconds in (0.3, 3, 25):  # so much must be left for inference
                late = _post(gateway, 2, **{"x-request-timeout": str(seconds)})
                if late.json().get("stage") == "queue":
                    break
        finally:
            held.leave.set()
        assert (late.status_code, late.json()["code"], late.json()["stage"]) == (
            504,
            "deadline_exceeded",
            "queue",
        )
        assert first.result(PATIENCE_S).json()["session"]["frame"] == 1
        assert _post(gateway, 2).json()["session"]["frame"] == 2


def test_an_earlier_frame_that_overtook_nobody_goes_first(repository: Path) -> None:
    """The later frame arrives first and is still inferred when the earlier one comes: no conflict."""
    held = Held()
    engine = FakeEngine(CATALOGUE, {"yolo11n_320": held})
    with client(repository, lambda *_: engine) as gateway, ThreadPoolExecutor(1) as other:
        later = other.submit(_post, gateway, 2)
        try:
            assert held.inside.wait(PATIENCE_S)
            earlier = _post(gateway, 1)
        finally:
            held.leave.set()
        assert earlier.json()["session"]["frame"] == 1
        assert later.result(PATIENCE_S).json()["session"]["frame"] == 2


@pytest.mark.parametrize("failing", ["image", "model"])
def test_a_frame_that_fails_doesn_t_hold_up_the_next(repository: Path, failing: str) -> None:
    """A frame that can't be read, or has no branch, leaves the queue."""
    with client(repository) as gateway:
        body, query = (b"broken", "") if failing == "image" else (BODIES[0], "&variant=x")
        failed = gateway.post(f"/v1/detect?session=a&timestamp=1{query}", content=body)
        assert failed.status_code in (415, 503)
        assert _post(gateway, 2, **{"x-request-timeout": "25"}).json()["session"]["frame"] == 1


def test_a_session_has_a_limit_of_requests_in_flight(repository: Path) -> None:
    """A session may have as many requests as leases and waiting places together; the next is told to retry, other
    sessions are served.
    """
    held = Held()
    engine = FakeEngine(CATALOGUE, {"yolo11n_320": held})
    settings = {"leases": 1, "max_waiting": 0}
    with client(repository, lambda *_: engine, **settings) as gateway, ThreadPoolExecutor(1) as other:
        first = other.submit(_post, gateway, 1)
        try:
            assert held.inside.wait(PATIENCE_S)
            refused = _post(gateway, 2)
            beside = gateway.post("/v1/detect?session=b", content=BODIES[0])
        finally:
            held.leave.set()
        assert first.result(PATIENCE_S).status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
    assert "session a" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) >= 1
    assert beside.status_code == 200
