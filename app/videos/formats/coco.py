"""`detections.coco.json`: the boxes of a video as a COCO dataset, an image per sampled frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import orjson

from app.videos.components.detect import DetectComponent
from app.videos.formats.base import Finished, Format
from app.videos.formats.boxes import class_names, read_boxes
from app.vision.coco import Categories, boxes_of_image, information

_MADE_BY = ("video_id", "run_id", "resolved_model_mapping", "models_used", "model_signature", "degraded")


class CocoFormat(Format):
    """Written row by row: a long video takes no more memory than a short one."""

    name = "coco"

    def files(self, finished: Finished) -> Sequence[str]:
        found = finished.artifact(DetectComponent) is not None
        return [f"{DetectComponent.name}/detections.coco.json"] if found else []

    def make(self, finished: Finished) -> None:
        source = finished.artifact(DetectComponent)
        for name in self.files(finished):
            assert source is not None  # noqa: S101  # see files
            with finished.output.writing(name) as file:
                _write(file, source, finished)


def _write(file: BinaryIO, source: str, finished: Finished) -> None:
    manifest, video = finished.manifest, finished.manifest["video"]
    categories = Categories(class_names(finished, source))
    head = {
        "info": information({name: manifest[name] for name in _MADE_BY if name in manifest}),
        "licenses": [],
        "videos": [
            {"id": 1, "name": manifest["video_id"], "width": video["width"], "height": video["height"]}
        ],
        "categories": categories.table(),
    }
    file.write(_dump(head)[:-1])
    file.write(b',\n"images":[')
    _list(file, _images(finished, source, video["width"], video["height"]))
    file.write(b'],\n"annotations":[')
    _list(file, _annotations(finished, source, categories))
    file.write(b"]}\n")


def _list(file: BinaryIO, rows: Iterable[dict[str, Any]]) -> None:
    file.writelines((b",\n" if number else b"\n") + _dump(row) for number, row in enumerate(rows))


def _images(finished: Finished, source: str, width: int, height: int) -> Iterator[dict[str, Any]]:
    for number, frame in enumerate(read_boxes(finished, source), 1):
        yield {
            "id": number, "file_name": f"{frame.index:06d}.jpg", "width": width, "height": height, "video_id": 1,
            "frame_index": frame.index, "time_s": round(frame.time_s, 6),
        }  # fmt: skip


def _annotations(finished: Finished, source: str, categories: Categories) -> Iterator[dict[str, Any]]:
    next_id = 1
    for number, frame in enumerate(read_boxes(finished, source), 1):
        rows = boxes_of_image(
            categories, number, next_id, frame.boxes, frame.scores, frame.class_ids, frame.track_ids
        )
        next_id += len(frame.scores)
        yield from rows


def _dump(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
