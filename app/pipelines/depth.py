"""A frame to relative inverse depth: decode -> route -> resize -> run -> back to the source's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.media.encodings import colour_png_bytes, npy_bytes, png16_bytes
from app.media.fit import resize_map
from app.pipelines.base import Deadline, Served, Wishes
from app.pipelines.dense import Analysis, DensePipeline

Size = Literal["source", "branch"]


@dataclass(frozen=True, slots=True)
class DepthMap:
    """`values` `[H, W]` float32: MiDaS' relative inverse depth (greater is nearer, no unit)."""

    values: NDArray[np.float32]
    width: int
    height: int
    served: Served

    def statistics(self) -> dict[str, float]:
        p05, p95 = np.percentile(self.values, (5, 95))
        return {
            "min": float(self.values.min()),
            "max": float(self.values.max()),
            "mean": float(self.values.mean()),
            "std": float(self.values.std()),
            "p05": float(p05),
            "p95": float(p95),
        }

    def npy(self) -> bytes:
        return npy_bytes(self.values)

    def png16(self) -> tuple[bytes, float, float]:
        """See `png16_bytes`."""
        return png16_bytes(self.values)

    def picture(self) -> bytes:
        """PNG to look at: bright is near."""
        return colour_png_bytes(self.values)


@dataclass(frozen=True, slots=True)
class DepthPipeline(DensePipeline):
    """See the module; safe to call from many threads."""

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
        values, (width, height), served = self.run_picture("depth", data, wishes, deadline, analysis)
        with served.timings.stage("finish"):
            if size == "source":
                values = resize_map(values, width, height)
        self.observe(served)
        return DepthMap(values, width, height, served)
