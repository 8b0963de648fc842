"""Answers of detection to several frames: a batch, the frames of a session, or one frame by several variants."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Response

from app.api.request.file_names import file_name
from app.api.request.uploads import Upload
from app.api.response.batches import BatchItem, batch_answer
from app.api.response.detection_files import WRITERS, detection_file
from app.errors import GatewayError
from app.media.image import sniff
from app.pipelines.detect import Detections
from app.pipelines.tracking import Tracked

_ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "BMP": ".bmp"}


def all_answers(
    frames: Sequence[Detections | Tracked | GatewayError],
    form: str,
    names: Sequence[str],
    request_id: str,
    session_id: str | None = None,
) -> Response:
    """Write the answers to all frames as JSON (see `batch_answer`), or in the form of a file with their `names`."""
    if form in WRITERS:
        return detection_file(frames, form, names, session_id)
    return batch_answer([_item(frame, session_id) for frame in frames], request_id)


def _item(frame: Detections | Tracked | GatewayError, session_id: str | None) -> BatchItem | GatewayError:
    if isinstance(frame, GatewayError):
        return frame
    body = frame.body(session_id) if isinstance(frame, Tracked) else frame.body()
    return BatchItem(body, frame.served)


def names_of(upload: Upload) -> list[str]:
    """Return a file name for each frame: that of the part, or one of ours."""
    sent = upload.names or (None,) * len(upload.parts["file"])
    pairs = enumerate(zip(sent, upload.parts["file"], strict=True), 1)
    return [file_name(name) or f"image-{number}{_ending(data)}" for number, (name, data) in pairs]


def _ending(data: bytes) -> str:
    try:
        return _ENDINGS[sniff(data)]
    except GatewayError:  # the frame's own answer says so
        return ""
