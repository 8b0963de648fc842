"""Video jobs with a known result, each sent with an Idempotency-Key until it is accepted."""

from __future__ import annotations

import asyncio
import hashlib
import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from support.analysis import patches
from support.cluster.models import SAME
from support.cluster.records import Caller, ticks

FRAMES = 24
PROFILE = f"name: cluster\ncomponents: {{core_object_detections: {{branch: {SAME}, track: {{}}}}}}\n"
_OVER = ("done", "failed")
Arrays = dict[str, np.ndarray]


@dataclass(slots=True)
class Job:
    """One job of this load.

    Args:
        key: its Idempotency-Key.
        ids: every id that a 202 with this key named; more than one is a job that was made twice.
        states: as polls showed them, in order, without repeats.
        manifests: digests of the manifests that a done job showed; more than one is a result that changed.
        lost: answers that deny a job that was accepted, or a file of it.
        compared: all of its artefacts were fetched. `damaged`: those with another digest or other numbers.
    """

    key: str
    ids: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)
    error: str = ""
    lost: list[str] = field(default_factory=list)
    compared: bool = False
    damaged: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """True once it is done or failed."""
        return bool(self.states) and self.states[-1] in _OVER


class Jobs:
    """Sends jobs, asks for them, and compares their arrays with those of a job that nobody disturbed.

    Args:
        folder: an empty one for the video.
    """

    def __init__(self, folder: Path) -> None:
        self.video = patches(folder / "video.mp4", FRAMES).read_bytes()
        self.jobs: list[Job] = []
        self._expected: Arrays = {}

    async def learn(self, caller: Caller) -> None:
        """Run one job in peace and keep its arrays."""
        job = await self._submit(caller)
        await self._until_over(caller, job)
        if job.states[-1] != "done":
            raise RuntimeError(f"the first job is {job.states}: {job.error}")
        self._expected = await self._arrays(caller, job)
        self.jobs.clear()

    async def forever(self, caller: Caller, stop: asyncio.Event, every_s: float) -> None:
        """Send a job every so many seconds; return once all of them are over."""
        async with asyncio.TaskGroup() as tasks:
            async for _ in ticks(every_s):
                if stop.is_set():
                    return
                tasks.create_task(self._whole(caller))

    async def check_again(self, caller: Caller) -> None:
        """Look at every job once more: a finished one must not change."""
        for job in self.jobs:
            if job.ids:
                await self._look(caller, job)

    async def _whole(self, caller: Caller) -> None:
        job = await self._submit(caller)
        await self._until_over(caller, job)
        if job.states[-1:] == ["done"]:
            await self._compare(caller, job)

    async def _submit(self, caller: Caller) -> Job:
        """Send it until it is accepted; the key makes that one job."""
        job = Job(f'"{uuid.uuid4()}"')
        self.jobs.append(job)
        while not job.ids:
            answer = await caller.send(
                "submit", "POST", "/v1/videos", files={"file": ("video.mp4", self.video, "video/mp4")},
                data={"profile": PROFILE}, headers={"Idempotency-Key": job.key},
            )  # fmt: skip
            if answer is not None and answer.status_code == httpx2.codes.ACCEPTED:
                job.ids.append(answer.json()["id"])
            else:
                await asyncio.sleep(0.5)
        return job

    async def _until_over(self, caller: Caller, job: Job) -> None:
        while not (job.over or job.lost):
            await asyncio.sleep(1)
            await self._look(caller, job)

    async def _look(self, caller: Caller, job: Job) -> None:
        answer = await caller.send("poll", "GET", f"/v1/videos/{job.ids[0]}")
        if answer is None or answer.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
            return
        if not answer.is_success:
            job.lost.append(f"{job.ids[0]}: {answer.status_code} {answer.text[:200]}")
            return
        view = answer.json()
        if [view["state"]] != job.states[-1:]:
            job.states.append(view["state"])
        job.error = str(view.get("error") or "")
        if view["state"] == "done":
            digest = hashlib.sha256(_canonical(view["manifest"])).hexdigest()
            if digest not in job.manifests:
                job.manifests.append(digest)

    async def _compare(self, caller: Caller, job: Job) -> None:
        found = await self._arrays(caller, job)
        job.compared = True
        job.damaged += [
            name
            for name in sorted(found.keys() | self._expected.keys())
            if name not in found or name not in self._expected or not _same(found[name], self._expected[name])
        ]

    async def _arrays(self, caller: Caller, job: Job) -> Arrays:
        """Fetch every artefact, check it against its digest in the manifest, and return what was computed."""
        found: Arrays = {}
        address = f"/v1/videos/{job.ids[0]}"
        for row in (await self._insist(caller, job, address)).json()["manifest"]["artifacts"]:
            content = (await self._insist(caller, job, f"{address}/artifacts/{row['name']}")).content
            if hashlib.sha256(content).hexdigest() != row["sha256"]:
                job.damaged.append(f"{row['name']}: not the manifest's digest")
            if row["name"].endswith(".npz"):
                with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                    found |= {
                        f"{row['name']}/{name}": arrays[name] for name in arrays.files if _computed(name)
                    }
        return found

    async def _insist(self, caller: Caller, job: Job, path: str) -> httpx2.Response:
        """Ask until it is answered; each try is a record of its own."""
        while True:
            answer = await caller.send("artifact", "GET", path)
            if answer is not None and answer.is_success:
                return answer
            if answer is not None and answer.is_client_error:
                job.lost.append(f"{path}: {answer.status_code}")
                raise RuntimeError(job.lost[-1])
            await asyncio.sleep(0.5)


def _canonical(manifest: Mapping[str, Any]) -> bytes:
    rows = [(row["name"], row["sha256"]) for row in manifest["artifacts"]]
    return repr(sorted(rows)).encode()


def _computed(name: str) -> bool:
    """Times and names of runs differ between two runs."""
    return not any(word in name for word in ("created", "job", "ms", "provenance", "meta"))


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
