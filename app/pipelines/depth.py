"""A frame to relative inverse depth: decode -> route -> resize -> run -> back to the source's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.media.encodings import colour_bytes, npy_bytes, png16_bytes
from app.media.resize import resize_map
from app.pipelines.base import Framed, Served, Timings
from app.pipelines.dense import Analysis, DensePipeline
from app.vision import depth as depths
from routing.policy import Wishes

Size = Literal["source", "branch"]


@dataclass(frozen=True, slots=True)
class DepthMap:
    """`values` `[H, W]` float32: MiDaS' relative inverse depth (greater is nearer, no unit)."""

    values: NDArray[np.float32]
    width: int
    height: int
    served: Served

    def statistics(self) -> dict[str, float]:
        return depths.statistics(self.values)

    def npy(self) -> bytes:
        return npy_bytes(self.values)

    def png16(self) -> tuple[bytes, float, float]:
        """See `png16_bytes`."""
        return png16_bytes(self.values)

    def picture(self, *, jpeg: bool = False) -> bytes:
        """PNG or JPEG to look at: bright is near."""
        return colour_bytes(self.values, jpeg=jpeg)


@dataclass(frozen=True, slots=True)
class DepthPipeline(DensePipeline):
    """See the module; safe to call from many threads."""

    family: ClassVar[str] = "depth"

    def __call__(
        self,
        data: bytes,
        wishes: Wishes,
        deadline: Deadline,
        size: Size = "source",
        analysis: Analysis = (None, None),
    ) -> DepthMap:
        """Depth of one encoded picture.

        Raises:
            GatewayError: see `decode_image`, `Router.decide`, `Engine.lease` and `Lease.run`.
        """
        rgb, framed = self.decode(data, wishes, deadline, Timings(), analysis)
        return self.on_frame(rgb, framed, size)

    def on_frame(self, rgb: NDArray[np.uint8], framed: Framed, size: Size = "source") -> DepthMap:
        """Depth of one decoded frame `[height, width, 3]` uint8 RGB."""
        values, served = self.run_frames([rgb], framed)
        width, height = framed.facts.width, framed.facts.height
        with served.timings.stage("finish"):
            if size == "source":
                values = resize_map(values, width, height)
        framed.deadline.check("finish")
        self.observe(served)
        return DepthMap(values, width, height, served)
