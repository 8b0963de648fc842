"""The gateway is killed (-9) again and again under load: no region stays, nothing that was confirmed is lost.

    make chaos CHAOS=kills CHAOS_ARGS='--kills 20'

A real Triton with shared memory, a real Redis with the sessions, frames of several kinds, and video jobs: one that runs
through all of the kills, and one that is sent just before each. After every next start the regions of the dead are gone
from /dev/shm and from Triton; a session goes on with the frame after the last that was answered; at the end every job
that was taken is done, and its arrays are those of a job that nobody disturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from support import videos
from support.servers.gateway import png, scene
from support.servers.redis_server import RedisServer

from tests.chaos.common import Load, client, percentile
from tests.chaos.service import SHM, Service, registered, triton

BODY = png(scene(320, 320, (1, 64, 96, 32)))
PROFILE = "name: kills\ncomponents: {core_clip: {}, core_object_detections: {track: {}}}\n"
SESSIONS = 4
FRAMES = 4


@dataclass(slots=True)
class Session:
    """One camera: what was confirmed, and how many frames went without an answer since."""

    name: str
    confirmed: int = 0
    unanswered: int = 0
    clock: float = 0.0
    answers: int = 0
    lost: list[str] = field(default_factory=list)

    async def forever(self, http: httpx2.AsyncClient, stop: asyncio.Event) -> None:
        while not stop.is_set():
            # A frame without an answer may have been kept: the next is a little later, and no track is lost meanwhile.
            self.clock += 0.001 if self.unanswered else 0.1
            path = f"/v1/detect?branch=320&session={self.name}&timestamp={self.clock:.3f}"
            try:
                answer = await http.post(path, content=BODY)
            except httpx2.TransportError:
                self.unanswered += 1
                await asyncio.sleep(0.05)
                continue
            if answer.status_code != 200:
                self.unanswered += 1
                if answer.status_code < 500:
                    self.lost.append(f"{self.name}: {answer.status_code} {answer.text[:200]}")
                continue
            self._confirm(answer.json())

    def _confirm(self, body: dict[str, Any]) -> None:
        frame, tracks = body["session"]["frame"], [row["track_id"] for row in body["detections"]]
        self.answers += 1
        if not self.confirmed < frame <= self.confirmed + self.unanswered + 1:
            self.lost.append(f"{self.name}: frame {frame} after {self.confirmed} (+{self.unanswered})")
        if self.confirmed > 1 and tracks != [1]:
            self.lost.append(f"{self.name}: tracks {tracks} at frame {frame}")
        self.confirmed, self.unanswered = frame, 0


class Jobs:
    """Videos that were taken (202), and what their arrays must be."""

    def __init__(self, http: httpx2.AsyncClient, folder: Path) -> None:
        self._http = http
        self.short = videos.count(folder / "short.mp4", 60).read_bytes()
        self.long = videos.count(folder / "long.mp4", 3000).read_bytes()
        self.taken: list[tuple[str, bool]] = []

    async def send(self, *, long: bool = False) -> str:
        video = self.long if long else self.short
        answer = await self._http.post(
            "/v1/videos", files={"file": ("v.mp4", video)}, data={"profile": PROFILE}
        )
        answer.raise_for_status()
        job: str = answer.json()["id"]
        self.taken.append((job, long))
        return job

    async def done(self, job: str, seconds: float) -> dict[str, Any]:
        limit = time.monotonic() + seconds
        while True:
            answer = await self._http.get(f"/v1/videos/{job}")
            view: dict[str, Any] = answer.json()
            if answer.status_code != 200 or view["state"] in ("done", "failed") or time.monotonic() > limit:
                return view
            await asyncio.sleep(0.1)

    async def arrays(self, job: str) -> dict[str, Any]:
        """Every array of every artefact."""
        found: dict[str, Any] = {}
        view = await self.done(job, 1)
        for row in view["manifest"]["artifacts"]:
            if row["name"].endswith(".npz"):
                content = (await self._http.get(f"/v1/videos/{job}/artifacts/{row['name']}")).content
                with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                    found |= {f"{row['name']}/{name}": arrays[name] for name in arrays.files}
        return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    if found.keys() != expected.keys():
        return [f"arrays {sorted(found.keys() ^ expected.keys())}"]
    return [name for name, value in found.items() if _measured(name) and not _same(value, expected[name])]


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _measured(name: str) -> bool:
    """Times and names of runs differ between two runs; everything that is computed doesn't."""
    return not any(word in name for word in ("created", "job", "ms", "provenance", "meta"))


@dataclass(slots=True)
class Found:
    """Results of a run."""

    kills: int = 0
    regions_killed: int = 0
    left: list[str] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    jobs: int = 0
    longest_attempts: int = 0


async def frames(load: Load, stop: asyncio.Event, number: int) -> None:
    """One after another; while nobody listens, with a pause."""
    while not stop.is_set():
        broken = load.tally.broken.total()
        await load.one(load.kinds[number % len(load.kinds)])
        number += 1
        if load.tally.broken.total() > broken:
            await asyncio.sleep(0.05)


async def until_gone(names: set[str], http: httpx2.AsyncClient, seconds: float = 5) -> list[str]:
    """Return the regions that are still in shared memory or in Triton by then."""
    limit = time.monotonic() + seconds
    while True:
        left = sorted({name for name in names if (SHM / name).exists()} | (names & await registered(http)))
        if not left or time.monotonic() > limit:
            return left
        await asyncio.sleep(0.05)


async def killing(
    kills: int, service: Service, jobs: Jobs, triton_http: httpx2.AsyncClient, found: Found
) -> None:
    chance = random.Random(0)
    for _ in range(kills):
        await asyncio.sleep(chance.uniform(0.3, 2.0))
        with contextlib.suppress(httpx2.TransportError):
            await jobs.send()
        await asyncio.sleep(chance.uniform(0.0, 0.2))
        regions = service.regions()
        await asyncio.to_thread(service.kill)
        service.start()
        found.starts_s.append(await service.until_ready())
        found.left += await until_gone(regions, triton_http)
        found.regions_killed += len(regions)
        found.kills += 1


async def judge(jobs: Jobs, expected: dict[bool, dict[str, Any]], found: Found) -> None:
    for job, long in jobs.taken:
        view = await jobs.done(job, 180)
        if view.get("state") != "done":
            found.problems.append(f"job {job}: {view.get('state', view)} {view.get('error')}")
            continue
        found.longest_attempts = max(found.longest_attempts, view.get("attempts", 0))
        wrong = differences(await jobs.arrays(job), expected[long])
        found.problems += [f"job {job}: {name} differs" for name in wrong]
    found.jobs = len(jobs.taken)


async def run(kills: int) -> int:
    found = Found()
    sessions = [Session(f"camera-{number}") for number in range(SESSIONS)]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with triton(folder) as server, RedisServer(folder / "redis") as redis:
            service = Service(server.grpc_url, folder, session_store=redis.url)
            service.start()
            try:
                await service.until_ready()
                async with client(service.url) as http, client(server.http_url) as triton_http:
                    load, jobs, stop = Load(http, 10), Jobs(http, folder), asyncio.Event()
                    expected = {}
                    for long in (False, True):
                        job = await jobs.send(long=long)
                        await jobs.done(job, 180)
                        expected[long] = await jobs.arrays(job)
                    jobs.taken.clear()
                    await load.learn()
                    tasks = [asyncio.create_task(session.forever(http, stop)) for session in sessions]
                    tasks += [asyncio.create_task(frames(load, stop, number)) for number in range(FRAMES)]
                    await jobs.send(long=True)
                    await killing(kills, service, jobs, triton_http, found)
                    stop.set()
                    await asyncio.gather(*tasks)
                    await judge(jobs, expected, found)
                    last = service.regions()
                    code = await asyncio.to_thread(service.stop)
                    found.left += await until_gone(last, triton_http)
            finally:
                if service.process is not None and service.process.poll() is None:
                    service.kill()
    return report(load, sessions, found, code)


def report(load: Load, sessions: list[Session], found: Found, code: int) -> int:
    lost = [line for session in sessions for line in session.lost]
    rows = load.tally.rows() | {
        "kills": found.kills,
        "regions of the killed": found.regions_killed,
        "regions left after the next start": found.left,
        "seconds from start to ready, p50 and max": [
            round(percentile(found.starts_s, p), 2) for p in (50, 100)
        ],
        "frames of sessions confirmed": sum(session.answers for session in sessions),
        "sessions that lost a confirmed frame": lost[:5],
        "jobs taken, all done with the right arrays": found.jobs,
        "attempts of the longest job": found.longest_attempts,
        "problems of jobs": found.problems[:5],
        "exit code of the last": code,
    }
    print(json.dumps(rows, indent=1))
    for line in load.tally.wrong[:5]:
        print("!", line)
    return 1 if load.tally.wrong or found.left or lost or found.problems or code else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    return asyncio.run(run(parser.parse_args().kills))


if __name__ == "__main__":
    sys.exit(main())
