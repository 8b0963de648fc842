"""One run: a load of frames, sessions and jobs, while parts of the cluster are killed."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2

from support.cluster.deeds import Deeds
from support.cluster.frames import Camera, Frames, undisturbed
from support.cluster.jobs import Jobs
from support.cluster.records import Caller
from support.cluster.service import Cluster
from support.cluster.verdict import Run

FRAMES_PER_S = 13.0
CAMERAS = 4
FRAMES_OF_A_CAMERA_PER_S = 2.5
JOB_EVERY_S = 3.0
_LAST_JOBS_S = 120.0
Script = Callable[[Deeds], Awaitable[None]]


async def play(cluster: Cluster, script: Script) -> Run:
    """Run the load, about 25 requests per second, until the script is over and every job with it."""
    limits = httpx2.Limits(max_connections=256, max_keepalive_connections=256)
    made = httpx2.AsyncClient(base_url=cluster.balancer.url, timeout=120, limits=limits, trust_env=False)
    with tempfile.TemporaryDirectory() as folder:
        async with made as http:
            jobs = Jobs(Path(folder))
            expected = await undisturbed(http)
            await jobs.learn(Caller(http))
            frames = Frames(cluster.models.truth, cluster.models.same_digest)
            cameras = [Camera(f"camera-{number}") for number in range(CAMERAS)]
            before = await _listed(http)
            caller, stop = Caller(http), asyncio.Event()
            with contextlib.suppress(TimeoutError):  # a job that isn't over is in the figures
                async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as tasks:
                    tasks.create_task(frames.forever(caller, stop, 1 / FRAMES_PER_S))
                    for camera in cameras:
                        tasks.create_task(camera.forever(caller, stop, 1 / FRAMES_OF_A_CAMERA_PER_S))
                    tasks.create_task(jobs.forever(caller, stop, JOB_EVERY_S))
                    deeds = Deeds(cluster, caller.records)
                    try:
                        await script(deeds)
                    finally:
                        stop.set()
                    limit.reschedule(asyncio.get_running_loop().time() + _LAST_JOBS_S)
            await jobs.check_again(caller)
            listed = await _listed(http) - before
    return Run(caller.records, deeds.done, frames, cameras, expected, jobs, listed)


async def _listed(http: httpx2.AsyncClient) -> int:
    """The number of jobs that the service lists."""
    return len((await http.get("/v1/videos?limit=1000")).json()["videos"])
