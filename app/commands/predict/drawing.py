"""Boxes of an answer on the picture or the video that they are of, as the service itself draws them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from app.errors import GatewayError
from app.media.image import ImageLimits, decode_image
from app.media.overlays import draw_boxes, picture_bytes
from app.media.video.reader import Sampling, VideoFrame, VideoLimits, VideoReader
from app.media.video.writer import VideoWriter

_ANY_SIZE = 1 << 31
Found = Sequence[Mapping[str, Any]]


def boxes_on(data: bytes, detections: Found, *, jpeg: bool) -> bytes:
    """The encoded picture with the boxes of its answer, as PNG or JPEG.

    Raises:
        GatewayError: the picture can't be decoded here.
    """
    rgb = decode_image(data, ImageLimits(_ANY_SIZE))
    boxes, classes, labels = _parts(detections)
    return picture_bytes(draw_boxes(rgb, boxes, classes, labels), jpeg=jpeg)


class Film:
    """The annotated copy of a video: its frames are decoded here once more, and drawn on as their answers come."""

    def __init__(self, reader: VideoReader, writer: VideoWriter) -> None:
        self._writer = writer
        self._frames = iter(reader)
        self._next: VideoFrame | None = None

    def add(self, index: int, detections: Found) -> None:
        """Draw the boxes of the frame `index`; frames before it that had no answer are left out."""
        frame = self._frame(index)
        if frame is None:
            return
        boxes, _, labels = _parts(detections)
        tracks = np.array([found["track_id"] or 0 for found in detections], np.int32)
        self._writer.write(np.asarray(draw_boxes(frame.rgb, boxes, tracks, labels)), frame.time_s)
        frame.release()

    def _frame(self, index: int) -> VideoFrame | None:
        while True:
            frame = self._next or next(self._frames, None)
            self._next = None
            if frame is None or frame.index == index:
                return frame
            if frame.index > index:
                self._next = frame
                return None
            frame.release()


@contextmanager
def film(file: BinaryIO, path: Path, sampling: Sampling) -> Iterator[Film | None]:
    """An mp4 beside the answers of a video; None where the video can't be decoded here."""
    with ExitStack() as held:
        try:
            reader = held.enter_context(VideoReader(file, sampling, VideoLimits()))
        except GatewayError:
            yield None
            return
        writer = held.enter_context(VideoWriter(path, sampling.fps or 10.0))
        writer.pixel_aspect = reader.facts.pixel_aspect
        yield Film(reader, writer)


def _parts(detections: Found) -> tuple[NDArray[np.float32], NDArray[np.int32], list[str]]:
    boxes = np.array([found["box"] for found in detections], np.float32).reshape(-1, 4)
    classes = np.array([found["class_id"] for found in detections], np.int32)
    labels = [f"{_track(found)}{found['class_name']} {found['score']:.2f}" for found in detections]
    return boxes, classes, labels


def _track(found: Mapping[str, Any]) -> str:
    return "" if found["track_id"] is None else f"#{found['track_id']} "
