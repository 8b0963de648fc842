"""A video: the boxes of each sampled frame, with the ids of a tracker of its own."""

from __future__ import annotations

from dataclasses import asdict

from app.api.response.ndjson import Record, Streamed
from app.api.routes.detect.query import DetectQuery
from app.pipelines.base import Framed
from app.pipelines.detect import Detections, DetectParameters, DetectPipeline, without_pixels
from app.pipelines.frames import Frame, Sample
from app.pipelines.tracking import VideoTracker
from routing.policy import Wishes


def streamed(
    pipeline: DetectPipeline, query: DetectQuery, parameters: DetectParameters, wishes: Wishes
) -> Streamed:
    """Return the work on each sampled frame: detection side by side, then the tracker in the frames' order."""
    tracker = VideoTracker(parameters, asdict(query.tracking()))

    def run(frame: Frame, previous: Frame | None, framed: Framed) -> Detections:
        del previous
        return without_pixels(pipeline.on_frame(frame.rgb, framed, tracker.detector_parameters))

    def follow(sample: Sample, found: Detections) -> Record:
        with found.served.timings.stage("finish"):
            tracked = tracker(found, sample.time_s)
        return Record(tracked.body(), tracked.served)

    return Streamed(DetectPipeline.family, run, wishes, query.analysis(), follow)
