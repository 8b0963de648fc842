"""`gateway flow`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from app.commands.predict.families.base import PICTURES, FamilyCommand

if TYPE_CHECKING:
    from app.commands.predict.answers import Answer, Work
    from app.commands.predict.inputs import Input


def _pair(work: Work, entry: Input, other: Input, first: bytes, second: bytes) -> Answer:
    """Answer two pictures with the motion of each pixel of the first."""
    from app.commands.predict.answers import provenance, sizes  # noqa: PLC0415  # NumPy, for those who run it
    from app.commands.smoke.http import multipart  # noqa: PLC0415  # ditto

    reply, values, ms = work.array(*multipart({"frame0": first, "frame1": second}))
    from app.pipelines.flow import colour_picture  # noqa: PLC0415  # OpenCV, for those who save
    from app.vision.flow import statistics  # noqa: PLC0415  # ditto

    said = {"flow": statistics(values), **sizes(values.shape[1:]), **provenance(reply)}
    saved = []
    if work.saver is not None:
        saved = [
            work.saver.bytes(entry, "png", colour_picture(values)),
            work.saver.bytes(entry, "npy", reply.body),
        ]
    return work.answer(entry, (first, second), said, ms, saved, names=[entry.name, other.name])


def _result(said: Mapping[str, Any]) -> str:
    flow = said["flow"]
    return (
        f"mean {flow['magnitude_mean']:.3g} px, greatest {flow['magnitude_max']:.3g} px "
        f"(x {flow['dx_mean']:+.3g}, y {flow['dy_mean']:+.3g})"
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variant", choices=("small", "large"), help="RAFT's variant (default small)")
    parser.add_argument(
        "--consecutive", action="store_true", help="pair each picture with the next one: 1 2, 2 3, 3 4"
    )


FLOW = FamilyCommand(
    name="flow",
    family="flow",
    route="/v1/flow",
    help="estimate the motion between pairs of pictures",
    heading="motion",
    result=_result,
    files=f"the two pictures of each pair in order: {PICTURES}",
    kinds=("png", "npy", "json"),
    add_options=_add_options,
    parameters={"variant": "variant"},
    pair=_pair,
)
