"""`gateway detect`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from app.commands.predict.families.arguments import count, positive, unit
from app.commands.predict.families.base import PICTURES, FamilyCommand

if TYPE_CHECKING:
    from app.commands.predict.answers import Answer, Work
    from app.commands.predict.inputs import Input
    from app.commands.predict.videos import OnFrame, Summary


def counted(detections: Sequence[Mapping[str, Any]]) -> str:
    """`2 person, 1 bus`: the most frequent first."""
    counts = Counter(str(found["class_name"]) for found in detections)
    return ", ".join(f"{number} {name}" for name, number in counts.most_common()) or "nothing"


def _picture(work: Work, entry: Input, data: bytes) -> Answer:
    said, ms = work.json(data)
    saved = []
    if work.saver is not None:
        from app.commands.predict.drawing import boxes_on  # noqa: PLC0415  # OpenCV, for those who save

        kind = "jpg" if data.startswith(b"\xff\xd8\xff") else "png"
        saved = [work.saver.bytes(entry, kind, boxes_on(data, said["detections"], jpeg=kind == "jpg"))]
    return work.answer(entry, data, said, ms, saved)


def _video(work: Work, entry: Input, file: BinaryIO, nbytes: int, on_frame: OnFrame) -> Summary:
    from app.commands.predict import videos  # noqa: PLC0415  # for those who have one

    return videos.detect(work, entry, file, nbytes, on_frame)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--conf", type=unit, help="keep only boxes with a higher score (default 0.25)")
    parser.add_argument(
        "--iou", type=unit, help="boxes of a class that overlap more count as one (default 0.7)"
    )
    parser.add_argument(
        "--max-det", "--max_det", type=count, metavar="N", help="most boxes per picture (default 300)"
    )
    parser.add_argument(
        "--classes", action="append", metavar="NAMES", help="keep these classes: names or ids, with commas"
    )
    parser.add_argument(
        "--agnostic", action="store_true", help="boxes suppress each other regardless of class"
    )
    parser.add_argument("--variant", choices=("n", "s", "m", "l", "x"), help="YOLO11 variant")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--every", type=count, metavar="N", help="take every N-th frame of a video")
    how.add_argument("--fps", type=positive, help="take at most this many frames per second of a video")
    parser.add_argument(
        "--provenance", choices=("every", "change"),
        help="videos: write branch and models on every line of --json (default), or only on the first line and on "
        "lines where they change",
    )  # fmt: skip


DETECT = FamilyCommand(
    name="detect",
    family="detect",
    route="/v1/detect",
    help="find objects in pictures and videos",
    heading="found",
    result=lambda said: counted(said["detections"]),
    files=f"{PICTURES}; videos (MP4, MOV, Matroska, WebM, AVI) too",
    kinds=("jpg", "png", "mp4", "ndjson", "json"),
    add_options=_add_options,
    parameters={
        "conf": "conf", "iou": "iou", "max_det": "max_det", "classes": "classes", "agnostic": "agnostic",
        "variant": "variant",
    },
    picture=_picture,
    video=_video,
)  # fmt: skip
