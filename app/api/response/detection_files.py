"""Detections as files that other tools read: COCO JSON and CSV, of one frame or a batch.

`docs/outputs.md` describes both.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson
from fastapi import Response

from app.api.response.answers import described_answer, total
from app.errors import GatewayError
from app.pipelines.base import Served, provenance
from app.pipelines.detect import Detections
from app.pipelines.tracking import Tracked
from app.vision.coco import Categories, boxes_of_image, information

COCO = "application/vnd.coco+json"
CSV = "text/csv"
_HEADER = (
    "image_id", "file_name", "width", "height", "x1", "y1", "x2", "y2", "score", "class_id", "class_name", "track_id",
    "frame", "timestamp", "branch", "error",
)  # fmt: skip
# A spreadsheet takes a text that begins like this for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
Frame = Detections | Tracked | GatewayError


@dataclass(frozen=True, slots=True)
class _Image:
    """One frame of the request; `number` from 1, in the order of the parts."""

    number: int
    name: str
    found: Detections
    tracked: Tracked | None


def detection_file(
    frames: Sequence[Frame], form: str, names: Sequence[str], session_id: str | None = None
) -> Response:
    """Write the boxes of all frames as one file.

    Args:
        frames: boxes or error of each.
        form: a key of `WRITERS`.
        names: file name of each.
        session_id: the session of the frames.

    Raises:
        GatewayError: the first, where no frame could be used.
    """
    images = [
        _Image(number, name, frame.found, frame) if isinstance(frame, Tracked) else _Image(number, name, frame, None)
        for number, (frame, name) in enumerate(zip(frames, names, strict=True), 1)
        if not isinstance(frame, GatewayError)
    ]  # fmt: skip
    faults = {
        number: (name, frame)
        for number, (frame, name) in enumerate(zip(frames, names, strict=True), 1)
        if isinstance(frame, GatewayError)
    }
    if not images:
        raise next(frame for _, frame in faults.values())
    made_by = _made_by([image.found.served for image in images], len(faults))
    timings = total([image.found.served.timings for image in images])
    with timings.stage("encode"):
        content = WRITERS[form](_Contents(images, faults, made_by, session_id))
    kind = f"{CSV}; charset=utf-8; header=present" if form == CSV else form
    return described_answer(content, kind, made_by, timings)


@dataclass(frozen=True, slots=True)
class _Contents:
    """Contents of one file; `faults` by the number of the image."""

    images: Sequence[_Image]
    faults: Mapping[int, tuple[str, GatewayError]]
    made_by: Mapping[str, Any]
    session_id: str | None


def _made_by(served: Sequence[Served], faults: int) -> Mapping[str, Any]:
    """Return the fields of the JSON answer that say how it was made: of one frame, or of a batch."""
    if len(served) == 1 and not faults:
        return served[0].described()
    degraded = any(one.decision.degraded for one in served)
    return {"errors": faults, **provenance(served), "degraded": degraded}


def _coco(contents: _Contents) -> bytes:
    categories = Categories(contents.images[0].found.labels)
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for image in contents.images:
        height, width = image.found.rgb.shape[:2]
        entry: dict[str, Any] = {
            "id": image.number, "file_name": image.name, "width": width, "height": height,
        }  # fmt: skip
        tracked, found = image.tracked, image.found
        if tracked is not None and contents.session_id is not None:
            entry["session"] = {
                "id": contents.session_id, "frame": tracked.frame, "timestamp": tracked.time_s,
            }  # fmt: skip
        images.append(entry)
        tracks = None if tracked is None else tracked.track_ids
        rows += boxes_of_image(
            categories, image.number, len(rows) + 1, found.boxes, found.scores, found.class_ids, tracks
        )
    document: dict[str, Any] = {
        "info": information(contents.made_by),
        "licenses": [],
        "categories": categories.table(),
        "images": images,
        "annotations": rows,
    }
    if contents.faults:
        document["errors"] = [
            {"image_id": number, "file_name": name, "code": fault.code, "detail": fault.detail}
            for number, (name, fault) in contents.faults.items()
        ]
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _csv(contents: _Contents) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\r\n")  # RFC 4180
    writer.writerow(_HEADER)
    by_number = {image.number: image for image in contents.images}
    for number in sorted([*by_number, *contents.faults]):
        if number in by_number:
            writer.writerows(_rows(by_number[number]))
        else:
            name, fault = contents.faults[number]
            writer.writerow([number, plain_text(name), *[""] * (len(_HEADER) - 3), fault.code])
    return buffer.getvalue().encode()


def _rows(image: _Image) -> Iterator[list[object]]:
    found, tracked = image.found, image.tracked
    height, width = found.rgb.shape[:2]
    tracks = [-1] * len(found.scores) if tracked is None else tracked.track_ids.tolist()
    place = ["", ""] if tracked is None else [tracked.frame, tracked.time_s]
    branch = found.served.decision.branch.name
    columns = zip(found.boxes, found.scores, found.class_ids.tolist(), found.names(), tracks, strict=True)
    for box, score, class_id, name, track in columns:
        yield [
            image.number, plain_text(image.name), width, height, *map(str, box), str(score), class_id,
            plain_text(name), "" if track < 0 else track, *place, branch, "",
        ]  # fmt: skip


def plain_text(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: with a quote before it where it would."""
    return f"'{text}" if text.startswith(_FORMULA) else text


WRITERS: Mapping[str, Callable[[_Contents], bytes]] = MappingProxyType({COCO: _coco, CSV: _csv})
"""THE table of these forms: media type -> writer."""
