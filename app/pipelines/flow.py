"""Two frames to optical flow: decode both -> route -> resize -> run -> source size and source pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.errors import InvalidParameter
from app.media.encodings import flo_bytes, npy_bytes, rgb_bytes
from app.media.resize import resize_map
from app.pipelines.base import Framed, Served, Timings
from app.pipelines.dense import Analysis, DensePipeline, Squares
from app.vision import flow as flows
from routing.policy import Wishes

_STRIP = 64  # rows of a picture that are coloured at once


@dataclass(frozen=True, slots=True)
class FlowField:
    """`values` `[2, H, W]` float32: how far each pixel of the first frame moves, x and y, in source pixels."""

    values: NDArray[np.float32]
    width: int
    height: int
    served: Served

    def statistics(self) -> dict[str, float]:
        return flows.statistics(self.values)

    def npy(self) -> bytes:
        return npy_bytes(self.values)

    def flo(self) -> bytes:
        return flo_bytes(self.values)

    def picture(self, *, jpeg: bool = False) -> bytes:
        """PNG or JPEG in the Middlebury colours."""
        return colour_picture(self.values, jpeg=jpeg)


def colour_picture(values: NDArray[np.float32], *, jpeg: bool = False) -> bytes:
    """A field `[2, H, W]` as PNG or JPEG in the Middlebury colours.

    The picture is made in strips; in one piece, a photo of 12 million pixels would take a gigabyte. Every strip gets
    the longest displacement as its last row, since saturation is relative to it.
    """
    height, width = values.shape[1:]
    longest = np.hypot(*values).argmax()
    reference = np.repeat(values.reshape(2, -1)[:, longest, None, None], width, axis=2)
    picture = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP):
        strip = np.concatenate([values[:, top : top + _STRIP], reference], axis=1)
        picture[top : top + _STRIP] = flows.colours(strip)[:-1]
    return rgb_bytes(picture, jpeg=jpeg)


@dataclass(frozen=True, slots=True)
class FlowPipeline(DensePipeline):
    """See the module; safe to call from many threads."""

    family: ClassVar[str] = "flow"

    def __call__(
        self,
        first: bytes,
        second: bytes,
        wishes: Wishes,
        deadline: Deadline,
        size: str = "source",
        analysis: Analysis = (None, None),
    ) -> FlowField:
        """Flow between two encoded pictures of one size.

        Raises:
            InvalidParameter: the frames differ in size.
            GatewayError: see `decode_image`, `Router.decide`, `Engine.lease` and `Lease.run`.
        """
        timings = Timings()
        rgb, framed = self.decode(first, wishes, deadline, timings, analysis)
        other, others = self.decode(second, wishes, deadline, timings, analysis)
        if framed.facts != others.facts:
            sizes = " and ".join(f"{facts.width}x{facts.height}" for facts in (framed.facts, others.facts))
            raise InvalidParameter(f"the frames differ in size: {sizes}")
        return self.on_frames(rgb, other, framed, size)

    def on_frames(
        self,
        first: NDArray[np.uint8],
        second: NDArray[np.uint8],
        framed: Framed,
        size: str = "source",
        squares: tuple[Squares, Squares] | None = None,
    ) -> FlowField:
        """Flow between two decoded frames `[height, width, 3]` uint8 RGB of one size.

        With `squares` of both, a frame of a video is resized once, not as the second and again as the first of a pair.
        """
        values, served = self.run_frames([first, second], framed, squares=squares)
        width, height = framed.facts.width, framed.facts.height
        with served.timings.stage("finish"):
            values = flows.scale_to(values, width, height)
            if size == "source":
                values = resize_map(values, width, height, "linear")
        framed.deadline.check("finish")
        self.observe(served)
        return FlowField(values, width, height, served)
