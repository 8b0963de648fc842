"""Shared part of the families that take raw pixels (UINT8 NHWC) and answer one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.errors import InferenceFailed, InvalidParameter
from app.media.image import ImageLimits, decode_image
from app.media.resize import fit_square, normalized_into
from app.metrics import Metrics
from app.pipelines.base import Framed, Router, Served, Timings, leased, observe, on_branch
from app.pipelines.pipeline_set import PipelineParts
from routing.policy import Decision, FrameFacts, Wishes

Fit = Literal["crop", "stretch"]
Analysis = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class DensePipeline:
    """decode -> route -> fit into the square -> run; `fit` None is the catalogue's rule."""

    family: ClassVar[str]
    router: Router
    metrics: Metrics
    limits: ImageLimits

    @classmethod
    def made_from(cls, parts: PipelineParts) -> Self:
        return cls(parts.router, parts.metrics, parts.limits)

    def decode(self, data: bytes, deadline: Deadline, timings: Timings) -> NDArray[np.uint8]:
        """`[height, width, 3]` uint8 RGB of one encoded picture."""
        deadline.check("queue")
        with timings.stage("decode"):
            rgb = decode_image(data, self.limits)
        deadline.check("decode")
        return rgb

    def run_picture(
        self,
        data: bytes,
        wishes: Wishes,
        deadline: Deadline,
        analysis: Analysis = (None, None),
        fit: Fit | None = None,
    ) -> tuple[NDArray[np.float32], tuple[int, int], Served]:
        """`run_frames` on one encoded picture: the output, the picture's `(width, height)`, and what served."""
        timings = Timings()
        rgb = self.decode(data, deadline, timings)
        height, width = rgb.shape[:2]
        frame = Framed(FrameFacts(width, height, *analysis), wishes, deadline, timings)
        values, served = self.run_frames([rgb], frame, fit)
        return values, (width, height), served

    def observe(self, served: Served) -> None:
        """See `base.observe`."""
        observe(self.metrics, served)

    def run_frames(
        self, frames: Sequence[NDArray[np.uint8]], framed: Framed, fit: Fit | None = None
    ) -> tuple[NDArray[np.float32], Served]:
        """Run one branch of the family on as many frames as it has inputs.

        Returns:
            The output without its batch axis (a copy), and what served.

        Raises:
            InferenceFailed: the model answered numbers that are not finite.
        """
        return on_branch(
            self.router, self.family, framed, lambda decision: self._run(decision, frames, framed, fit)
        )

    def _run(
        self, decision: Decision, frames: Sequence[NDArray[np.uint8]], framed: Framed, fit: Fit | None
    ) -> tuple[NDArray[np.float32], Served]:
        described = self.router.catalogue.families[decision.branch.family]
        deadline, timings = framed.deadline, framed.timings
        branch, prepare = decision.branch, decision.branch.prepare
        if prepare is None or branch.size is None or prepare.fit == "letterbox":
            raise InvalidParameter(f"{described.name} takes no raw frames")
        with timings.stage("prepare"):
            squares = [
                fit_square(frame, branch.size, fit or prepare.fit, prepare.interpolation, prepare.crop_ratio)
                for frame in frames
            ]
        deadline.check("prepare")
        with leased(self.router.engine, branch, deadline, timings) as lease:
            with timings.stage("prepare"):
                for spec, square in zip(branch.inputs, squares, strict=True):
                    if spec.datatype == "UINT8":
                        lease.inputs[spec.name][0] = square
                    else:
                        planes = lease.inputs[spec.name][0]
                        normalized_into(square, planes, prepare.scale, prepare.mean, prepare.std)
            deadline.check("prepare")
            with timings.stage("infer"):
                lease.run(deadline)
            deadline.check("infer")
            with timings.stage("finish"):
                values = lease.outputs[branch.outputs[0].name][0].copy()
            model = lease.model
        if not (np.isfinite(values.min()) and np.isfinite(values.max())):  # a NaN anywhere is the least
            raise InferenceFailed(f"{branch.name} answered numbers that are not finite")
        deadline.check("finish")
        return values, Served(described, decision, model, timings)
