"""Frames that were announced by their packets, held against those that the decoder puts out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

from av.video.frame import VideoFrame

from app.media.video.packets.needed import Unprovable

A = TypeVar("A")


class Announced(Generic[A]):
    """Each packet that is decoded must give one frame, with the packet's timestamp, in the order of presentation."""

    def __init__(self) -> None:
        self._known: dict[int, A] = {}
        self._pending: list[int] = []

    def want(self, stamp: int, announced: A) -> None:
        """Remember something about the frame with this timestamp, until it comes."""
        self._known[stamp] = announced

    def fed(self, stamp: int | None) -> None:
        """Note that the decoder gets the packet with this timestamp; None: one that shows no frame."""
        if stamp is not None:
            heappush(self._pending, stamp)

    def matched(self, frames: Iterable[VideoFrame]) -> Iterator[tuple[VideoFrame, A | None]]:
        """Pair the decoder's next frames with what is known of them.

        Raises:
            Unprovable: one is not the next that was announced, or is damaged.
        """
        for frame in frames:
            if frame.is_corrupt or not self._pending or frame.pts != heappop(self._pending):
                raise Unprovable
            yield frame, self._known.pop(frame.pts, None)

    def check_empty(self) -> None:
        """Hold the decoder, which has nothing left, against what it got.

        Raises:
            Unprovable: a frame is missing.
        """
        if self._pending:
            raise Unprovable
