"""Frames whose right answers are known, one after another and as sessions of a camera."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from support.cluster.models import COLOUR, OTHER, SAME
from support.cluster.records import Caller, ticks
from support.servers.gateway import png, scene

LENGTH = 24  # frames of a session
MOST_IN_FLIGHT, MOST_OF_A_SESSION = 24, 4
CONFLICT = "session_conflict"
Tracks = Mapping[int, int | None]  # by class: one object of each


def _seen(body: Mapping[str, Any]) -> list[tuple[int, tuple[float, ...]]]:
    return sorted(
        (row["class_id"], tuple(round(value, 3) for value in row["box"])) for row in body["detections"]
    )


@dataclass(slots=True)
class Frames:
    """Single frames for both branches, in turn.

    Args:
        truth: for `OTHER`: version and digest by the class that they answer.
        wrong: answers that no weights give. `false`: answers whose provenance names weights that don't give them.
        unknown: right answers that name no weights.
    """

    truth: Mapping[int, tuple[str, str]]
    same_digest: str
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)
    unknown: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0

    async def forever(self, caller: Caller, stop: asyncio.Event, every_s: float) -> None:
        """Send one every so many seconds, whatever becomes of those before; at most `MOST_IN_FLIGHT` at a time."""
        turns = itertools.cycle((SAME, OTHER))
        async with asyncio.TaskGroup() as tasks:
            async for _ in ticks(every_s):
                if stop.is_set():
                    return
                if self.in_flight < MOST_IN_FLIGHT:
                    self.in_flight += 1
                    tasks.create_task(self._one(caller, next(turns)))

    async def _one(self, caller: Caller, branch: str) -> None:
        answer = await caller.send("frame", "POST", f"/v1/detect?branch={branch}", content=_BODIES[branch])
        self.in_flight -= 1
        if answer is not None and answer.is_success:
            self._judge(branch, answer.json())

    def _judge(self, branch: str, body: Mapping[str, Any]) -> None:
        boxes, used = _seen(body), body["models_used"][0]
        classes = {SAME: [COLOUR], OTHER: list(self.truth)}[branch]
        if len(boxes) != 1 or boxes[0][0] not in classes or boxes[0][1] != _BOXES[branch]:
            self.wrong.append(f"{branch}: {boxes}")
            return
        said = (used["model_version"], used["weights_digest"])
        right = ("1", self.same_digest) if branch == SAME else self.truth[boxes[0][0]]
        self.right += 1
        if said[1] == "unknown":
            self.unknown += 1
        elif said != right:
            self.false.append(f"{branch}: class {boxes[0][0]} by {said}")
        if branch == OTHER:
            self.versions[said[0]] = self.versions.get(said[0], 0) + 1


_BODIES = {
    SAME: png(scene(320, 320, (COLOUR, 64, 96, 32))),
    OTHER: png(scene(640, 640, (COLOUR, 128, 128, 32))),
}
_BOXES = {SAME: (64.0, 96.0, 96.0, 128.0), OTHER: (128.0, 128.0, 160.0, 160.0)}


def _pictures() -> list[bytes]:
    """A blue patch that stays, a red one that goes for a while, a green one that comes late: ids 1, 2 and 3."""
    pictures = []
    for number in range(LENGTH):
        there = {2: True, 0: 5 <= number < 10 or number >= 14, 1: number >= 12}
        patches = [(colour, 64 + 96 * place, 96, 32) for place, colour in enumerate(there) if there[colour]]
        pictures.append(png(scene(320, 320, *patches)))
    return pictures


PICTURES = _pictures()


@dataclass(slots=True)
class Session:
    """One session: the tracks of each answered frame by number, and how each other frame ended."""

    name: str
    began: float
    ended: float = 0.0
    tracks: dict[int, Tracks] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    def late(self) -> list[int]:
        """Frames that were refused because a later one had been tracked, as one process refuses them."""
        return [number for number, code in self.refused.items() if code == CONFLICT and self._passed(number)]

    def turned(self) -> list[int]:
        """Frames that were refused as late although no later one can have been tracked."""
        late = self.late()
        return [number for number, code in self.refused.items() if code == CONFLICT and number not in late]

    def _passed(self, number: int) -> bool:
        unknown = (other for other, code in self.refused.items() if code != CONFLICT)
        return any(other > number for other in (*self.tracks, *unknown))

    def broken(self, expected: Sequence[Tracks]) -> list[str]:
        """Say which frames have other ids than those of one undisturbed process.

        Where frames were lost, tracks may begin later, but an object keeps the id that it has there.
        """
        final = expected[-1]
        found = []
        for number, tracks in sorted(self.tracks.items()):
            exact = not self.refused and dict(tracks) != dict(expected[number])
            changed = any(track is not None and track != final.get(kind) for kind, track in tracks.items())
            if exact or changed:
                found.append(f"{self.name} frame {number}: {dict(tracks)}, not {dict(expected[number])}")
        return found


def _address(name: str, number: int) -> str:
    return f"/v1/detect?branch={SAME}&session={name}&timestamp={number / 10:.1f}"


def _tracks(body: Mapping[str, Any]) -> Tracks:
    return {row["class_id"]: row["track_id"] for row in body["detections"]}


async def undisturbed(http: httpx2.AsyncClient) -> list[Tracks]:
    """The tracks of each frame of a session that one gateway answers in order."""
    found = []
    for number, picture in enumerate(PICTURES):
        answer = await http.post(_address("undisturbed", number), content=picture)
        answer.raise_for_status()
        found.append(_tracks(answer.json()))
    return found


@dataclass(slots=True)
class Camera:
    """Sends sessions one after another, each frame at its time, with at most `MOST_OF_A_SESSION` in flight."""

    name: str
    sessions: list[Session] = field(default_factory=list)

    async def forever(self, caller: Caller, stop: asyncio.Event, every_s: float) -> None:
        """Send one frame every so many seconds; a session that has begun is sent to its end."""
        loop, places = asyncio.get_running_loop(), asyncio.Semaphore(MOST_OF_A_SESSION)
        for name in self._names():
            if stop.is_set():
                return
            session = Session(name, loop.time())
            self.sessions.append(session)
            async with asyncio.TaskGroup() as tasks:
                async for number in ticks(every_s, LENGTH):
                    await places.acquire()
                    tasks.create_task(self._one(caller, session, number)).add_done_callback(
                        lambda _: places.release()
                    )
            session.ended = loop.time()

    def _names(self) -> Iterator[str]:
        return (f"{self.name}-{number}" for number in itertools.count())

    async def _one(self, caller: Caller, session: Session, number: int) -> None:
        answer = await caller.send(
            "session", "POST", _address(session.name, number), content=PICTURES[number]
        )
        if answer is not None and answer.is_success:
            session.tracks[number] = _tracks(answer.json())
        else:
            session.refused[number] = caller.records[-1].code
