"""`gateway depth`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from app.commands.predict.families.base import FamilyCommand, answer_as_json

if TYPE_CHECKING:
    from app.commands.predict.answers import Answer, Work
    from app.commands.predict.inputs import Input


def _picture(work: Work, entry: Input, data: bytes) -> Answer:
    if work.saver is None:
        return answer_as_json(work, entry, data)
    reply, values, ms = work.array(data)
    from app.commands.predict.answers import provenance, sizes  # noqa: PLC0415  # NumPy, for those who run it
    from app.media.encodings import colour_bytes  # noqa: PLC0415  # OpenCV, for those who save
    from app.vision.depth import statistics  # noqa: PLC0415  # ditto

    said = {"depth": statistics(values), **sizes(values.shape), **provenance(reply)}
    saved = [
        work.saver.bytes(entry, "png", colour_bytes(values)),
        work.saver.bytes(entry, "npy", reply.body),
    ]
    return work.answer(entry, data, said, ms, saved)


def _result(said: Mapping[str, Any]) -> str:
    depth = said["depth"]
    return f"{depth['min']:.3g} to {depth['max']:.3g}, mean {depth['mean']:.3g} (greater is nearer)"


DEPTH = FamilyCommand(
    name="depth",
    family="depth",
    route="/v1/depth",
    help="estimate the depth of pictures",
    heading="depth",
    result=_result,
    kinds=("png", "npy", "json"),
    picture=_picture,
)
