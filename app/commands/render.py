"""The annotated video of `gateway analyze --render`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.media.overlays import draw_boxes
from app.media.video.facts import VideoFacts
from app.media.video.writer import VideoWriter
from app.pipelines.frames import Sample
from app.pipelines.tracking import Tracked
from app.videos.components.detect import DetectComponent


class Annotator:
    """Draws what the detector says on every sampled frame; the colour is the track's."""

    def __init__(self, writer: VideoWriter) -> None:
        self._writer = writer

    def begin(self, facts: VideoFacts) -> None:
        """Keep the shape of the video's pixels."""
        self._writer.pixel_aspect = facts.pixel_aspect

    def __call__(self, sample: Sample, rgb: NDArray[np.uint8], said: Mapping[str, Any]) -> None:
        """An `Observer` of `VideoAnalysis`."""
        found: Tracked | None = said.get(DetectComponent.name)
        if found is None:
            self._writer.write(rgb, sample.time_s)
            return
        colours = np.maximum(found.track_ids, 0)
        drawn = draw_boxes(rgb, found.found.boxes, colours, found.labels())
        self._writer.write(np.asarray(drawn), sample.time_s)
