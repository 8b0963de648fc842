"""`annotated.mp4` and `contact_sheet.jpg`: the video's frames with the boxes of the artefact drawn on them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidVideo
from app.media.encodings import rgb_bytes
from app.media.overlays import contact_sheet, draw_boxes, thumbnail
from app.media.video.reader import VideoReader
from app.media.video.writer import VideoWriter
from app.pipelines.tracking import track_labels
from app.videos.components.detect import DetectComponent
from app.videos.formats.base import Finished, Format
from app.videos.formats.boxes import FrameBoxes, read_boxes

_TILES = 20
_TILE_PX = 320
_SLOTS = 4


class AnnotatedVideo(Format):
    """Every sampled frame at its time, with boxes, track ids and class names; the colour is the track's."""

    name = "mp4"
    needs_video = True

    def files(self, finished: Finished) -> Sequence[str]:
        del finished
        return ["annotated.mp4"]

    def make(self, finished: Finished) -> None:
        rate = finished.sampling.fps or 10.0
        # FFmpeg moves the index to the front in the end, for which it opens the file by its path again.
        with tempfile.TemporaryDirectory(prefix="gateway-") as folder:
            path = Path(folder) / "annotated.mp4"
            with VideoWriter(path, rate) as writer:

                def draw(rgb: NDArray[np.uint8], time_s: float, found: FrameBoxes | None) -> None:
                    writer.write(_drawn(rgb, found), time_s)

                with _reader(finished) as reader:
                    writer.pixel_aspect = reader.facts.pixel_aspect
                    _each(finished, reader, draw)
            with path.open("rb") as made, finished.output.writing(path.name) as file:
                shutil.copyfileobj(made, file)


class ContactSheet(Format):
    """Up to twenty frames of the whole video on one picture, with their boxes and times."""

    name = "sheet"
    needs_video = True

    def files(self, finished: Finished) -> Sequence[str]:
        del finished
        return ["contact_sheet.jpg"]

    def make(self, finished: Finished) -> None:
        frames = finished.manifest["frames"]["sampled"]
        wanted = set(np.linspace(0, frames - 1, min(frames, _TILES)).round().astype(int).tolist())
        tiles: list[tuple[NDArray[np.uint8], str]] = []
        counted = iter(range(frames))

        def draw(rgb: NDArray[np.uint8], time_s: float, found: FrameBoxes | None) -> None:
            if next(counted, None) in wanted:
                small, scale = thumbnail(rgb, _TILE_PX)
                drawn = _drawn(small, None if found is None else replace(found, boxes=found.boxes * scale))
                tiles.append((drawn, f"{time_s:.2f} s"))

        with _reader(finished) as reader:
            _each(finished, reader, draw)
        with finished.output.writing("contact_sheet.jpg") as file:
            file.write(rgb_bytes(contact_sheet(tiles), jpeg=True))


def _reader(finished: Finished) -> VideoReader:
    if finished.video is None:
        raise InvalidVideo("the video is gone; run gateway analyze over it")
    return VideoReader(finished.video, finished.sampling, finished.limits, _SLOTS)


def _each(
    finished: Finished,
    reader: VideoReader,
    draw: Callable[[NDArray[np.uint8], float, FrameBoxes | None], None],
) -> None:
    """Call `draw` for each frame that was analysed, in order."""
    source, count = finished.artifact(DetectComponent), finished.manifest["frames"]["sampled"]
    boxes: Iterable[FrameBoxes | None] = (
        repeat(None, count) if source is None else read_boxes(finished, source)
    )
    for found, frame in zip(boxes, reader, strict=False):
        try:
            finished.check()
            if found is not None and found.index != frame.index:
                raise InvalidVideo(f"frame {frame.index} was not analysed; use --force to analyse it again")
            draw(frame.rgb, frame.time_s, found)
        finally:
            frame.release()


def _drawn(rgb: NDArray[np.uint8], found: FrameBoxes | None) -> NDArray[np.uint8]:
    if found is None:
        return rgb
    labels = track_labels(found.track_ids, found.names, found.scores)
    return np.asarray(draw_boxes(rgb, found.boxes, np.maximum(found.track_ids, 0), labels))
