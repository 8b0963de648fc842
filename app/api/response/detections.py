"""Answers of detection: one frame, or each of a batch; with its tracks, where the frame belongs to a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Response

from app.api.response.answers import describe, json_answer
from app.api.response.batches import BatchItem, batch_answer
from app.errors import GatewayError
from app.pipelines.detect import Detections
from app.pipelines.tracking import Tracked


def frame_body(frame: Detections | Tracked, session_id: str | None = None) -> dict[str, Any]:
    """Boxes of one frame, without its provenance."""
    tracked = frame if isinstance(frame, Tracked) else None
    found = frame.found if isinstance(frame, Tracked) else frame
    height, width = found.rgb.shape[:2]
    class_ids = found.class_ids.tolist()
    tracks = [-1] * len(class_ids) if tracked is None else tracked.track_ids.tolist()
    rows = []
    for box, score, class_id, name, track in zip(
        found.boxes, found.scores, class_ids, found.names(), tracks, strict=True
    ):
        rows.append(
            {
                "box": box,
                "score": score,
                "class_id": class_id,
                "class_name": name,
                "track_id": None if track < 0 else track,
            }
        )
    body: dict[str, Any] = {"detections": rows, "image": {"width": width, "height": height}}
    if tracked is not None and session_id is not None:
        body["session"] = {"id": session_id, "frame": tracked.frame, "timestamp": tracked.time_s}
    return body


def one_answer(frame: Detections | Tracked, session_id: str | None = None) -> Response:
    served = frame.served
    return json_answer({**frame_body(frame, session_id), **describe(served)}, served.timings)


def all_answers(
    frames: Sequence[Detections | Tracked | GatewayError], request_id: str, session_id: str | None = None
) -> Response:
    """See `batch_answer`."""
    items = [
        frame if isinstance(frame, GatewayError) else BatchItem(frame_body(frame, session_id), frame.served)
        for frame in frames
    ]
    return batch_answer(items, request_id)
