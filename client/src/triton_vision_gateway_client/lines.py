"""Streams of lines: NDJSON of videos and server-sent events of jobs. No I/O here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from triton_vision_gateway_client.answers.decode import decode
from triton_vision_gateway_client.answers.videos import Frame, VideoSummary
from triton_vision_gateway_client.errors import (
    GatewayError,
    StreamInterrupted,
    UnexpectedAnswer,
    VideoIncomplete,
    from_problem,
)

T = TypeVar("T")
# Members of a line that say what made it. A line without them was made like the last one that has them.
_MADE_BY = ("branch", "resolved_model_mapping", "models_used", "model_signature", "degraded", "warnings")


class Lines:
    """Cuts chunks of bytes into lines at LF alone: texts inside JSON may hold Unicode's other line ends."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that are complete, without their ends."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [line.removesuffix(b"\r") for line in lines]


class FrameReader(Generic[T]):
    """Turns the lines of a video's answer into frames. `parse` reads the members of one frame's answer."""

    def __init__(self, parse: Callable[[Mapping[str, Any]], T], request_id: str | None) -> None:
        self._lines = Lines()
        self._parse = parse
        self._request_id = request_id
        self._made_by: dict[str, Any] = {}
        self._fault: GatewayError | None = None
        self.frames = 0
        self.summary: VideoSummary | None = None

    def feed(self, chunk: bytes) -> Iterator[Frame[T]]:
        """Yield the frames that a chunk completes."""
        for line in self._lines.feed(chunk):
            if not line.strip():
                continue
            document = _object(line)
            if "frame" in document:
                frame = self._frame(document)
                self.frames += 1
                yield frame
            elif "summary" in document:
                self.summary = decode(VideoSummary, document["summary"], request_id=self._request_id)
            elif "error" in document:
                self._fault = from_problem(document["error"])

    def finish(self) -> VideoSummary:
        """Return the summary, at the end of the stream.

        Raises:
            StreamInterrupted: there is none, so lines are missing.
            VideoIncomplete: the video could be read only in part.
        """
        if self.summary is None:
            raise StreamInterrupted("the answer ended before its summary", self.frames)
        if self._fault is not None:
            raise VideoIncomplete(self._fault, self.frames, self.summary)
        return self.summary

    def _frame(self, document: dict[str, Any]) -> Frame[T]:
        place = document["frame"]
        if not isinstance(place, dict) or not {"index", "time_s"} <= place.keys():
            raise UnexpectedAnswer("a line's frame has no index or time_s")
        index, time_s = int(place["index"]), float(place["time_s"])
        if "error" in document:
            return Frame(None, from_problem(document["error"]), index=index, time_s=time_s)
        if "models_used" in document:
            self._made_by = {name: document[name] for name in _MADE_BY if name in document}
        answer = self._parse({**self._made_by, **document, "request_id": self._request_id})
        return Frame(answer, index=index, time_s=time_s)


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event."""

    event: str
    data: str


class EventReader:
    """Turns lines into server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """Yield the events that a chunk completes; comments, which keep the connection alive, are left out."""
        for line in self._lines.feed(chunk):
            if not line:
                if self._data:
                    yield ServerEvent(self._event or "message", "\n".join(self._data))
                self._event, self._data = "", []
                continue
            name, _, value = line.decode("utf-8", "replace").partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                self._event = value
            elif name == "data":
                self._data.append(value)


def _object(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise UnexpectedAnswer(f"a line is no JSON: {line[:80]!r}") from error
    if not isinstance(document, dict):
        raise UnexpectedAnswer(f"a line is no object: {line[:80]!r}")
    return document
