"""Shared part of the families that take raw pixels (UINT8 NHWC) and answer one tensor."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.engine.base import Lease
from app.errors import InferenceFailed, InvalidParameter
from app.media.image import ImageLimits, decode_image, size_of_scalable
from app.media.resize import Fit, normalized_into, shortest_side, square_into
from app.metrics import Metrics
from app.pipelines.base import Framed, Router, Served, Timings, leased, observe, on_branch
from app.pipelines.pipeline_set import PipelineParts, Resizing
from routing.catalogue import Branch
from routing.policy import Decision, FrameFacts, Wishes

Analysis = tuple[int | None, int | None]
# The squares that were made of one frame: by size, fit, interpolation and crop ratio, `[size, size, 3]` uint8.
Squares = MutableMapping[object, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class DensePipeline:
    """decode -> route -> fit into the lease's square -> run; `fit` None is the catalogue's rule."""

    family: ClassVar[str]
    router: Router
    metrics: Metrics
    limits: ImageLimits
    resizing: Resizing = field(default_factory=Resizing)

    @classmethod
    def made_from(cls, parts: PipelineParts) -> Self:
        return cls(parts.router, parts.metrics, parts.limits, parts.resizing)

    def decode(
        self,
        data: bytes,
        wishes: Wishes,
        deadline: Deadline,
        timings: Timings,
        analysis: Analysis = (None, None),
        fit: Fit | None = None,
    ) -> tuple[NDArray[np.uint8], Framed]:
        """One encoded picture: `[height, width, 3]` uint8 RGB, and its context.

        With `scaled_jpeg`, the pixels of a large JPEG are those of a smaller picture; `Framed.facts` has its true size.
        """
        deadline.check("queue")
        with timings.stage("decode"):
            size = size_of_scalable(data, self.limits) if self.resizing.scaled_jpeg else None
        if size is None:
            with timings.stage("decode"):
                rgb = decode_image(data, self.limits)
            size, resized = (rgb.shape[1], rgb.shape[0]), None
            facts = FrameFacts(*size, *analysis)
        else:
            facts = FrameFacts(*size, *analysis)
            branch = self.router.decide(self.family, facts, wishes).branch
            with timings.stage("decode"):
                rgb = decode_image(data, self.limits, _least_side(branch, fit))
            resized = self.resizing.of(branch, picture=True)
        deadline.check("decode")
        return rgb, Framed(facts, wishes, deadline, timings, resized=resized)

    def run_picture(
        self,
        data: bytes,
        wishes: Wishes,
        deadline: Deadline,
        analysis: Analysis = (None, None),
        fit: Fit | None = None,
    ) -> tuple[NDArray[np.float32], tuple[int, int], Served]:
        """`run_frames` on one encoded picture: the output, the picture's `(width, height)`, and what served."""
        rgb, framed = self.decode(data, wishes, deadline, Timings(), analysis, fit)
        values, served = self.run_frames([rgb], framed, fit)
        return values, (framed.facts.width, framed.facts.height), served

    def observe(self, served: Served) -> None:
        """See `base.observe`."""
        observe(self.metrics, served)

    def run_frames(
        self,
        frames: Sequence[NDArray[np.uint8]],
        framed: Framed,
        fit: Fit | None = None,
        squares: Sequence[Squares] | None = None,
    ) -> tuple[NDArray[np.float32], Served]:
        """Run one branch of the family on as many frames as it has inputs.

        Args:
            frames: `[height, width, 3]` uint8 RGB each.
            framed: their surroundings.
            fit: None is the catalogue's rule.
            squares: per frame, those that were made of it before; what is made now is added. None: none are kept.

        Returns:
            The output without its batch axis (a copy), and what served.

        Raises:
            InferenceFailed: the model answered numbers that are not finite.
        """
        return on_branch(
            self.router,
            self.family,
            framed,
            lambda decision: self._run(decision, frames, framed, fit, squares),
        )

    def _run(
        self,
        decision: Decision,
        frames: Sequence[NDArray[np.uint8]],
        framed: Framed,
        fit: Fit | None,
        squares: Sequence[Squares] | None,
    ) -> tuple[NDArray[np.float32], Served]:
        described = self.router.catalogue.families[decision.branch.family]
        deadline, timings = framed.deadline, framed.timings
        branch = decision.branch
        resized = framed.resized or self.resizing.of(branch)
        with leased(self.router.engine, branch, deadline, timings) as lease:
            with timings.stage("prepare"):
                self._place(frames, lease, branch, fit, squares)
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
        return values, Served(described, decision, model, timings, resized)

    def _place(
        self,
        frames: Sequence[NDArray[np.uint8]],
        lease: Lease,
        branch: Branch,
        fit: Fit | None,
        squares: Sequence[Squares] | None,
    ) -> None:
        """Write each frame into the input that is its own, as the branch wants it."""
        prepare = branch.prepare
        if prepare is None or branch.size is None or prepare.fit == "letterbox":
            raise InvalidParameter(f"{branch.family} takes no raw frames")
        how = fit or prepare.fit, prepare.interpolation, prepare.crop_ratio
        for number, (spec, frame) in enumerate(zip(branch.inputs, frames, strict=True)):
            target = lease.inputs[spec.name][0]
            if spec.datatype == "UINT8":
                square = target
            else:
                square = lease.workspace.get("square")
                if square is None:
                    square = lease.workspace["square"] = np.empty((branch.size, branch.size, 3), np.uint8)
            if squares is None:
                square_into(self.resizing.resizer, frame, square, *how)
            else:
                self._reuse(frame, square, squares[number], how)
            if square is not target:
                normalized_into(square, target, prepare.scale, prepare.mean, prepare.std)

    def _reuse(
        self, frame: NDArray[np.uint8], square: NDArray[np.uint8], known: Squares, how: tuple[Fit, str, float]
    ) -> None:
        """Write the frame's square, which is made only if it isn't known; a copy takes a few percent of the time."""
        key = (len(square), *how)
        kept = known.get(key)
        if kept is None:
            square_into(self.resizing.resizer, frame, square, *how)
            known[key] = square.copy()
        else:
            square[:] = kept


def _least_side(branch: Branch, fit: Fit | None) -> int:
    """Pixels that each side of a picture must have for this branch; 0: all that it has."""
    prepare = branch.prepare
    if prepare is None or branch.size is None or prepare.fit == "letterbox":
        return 0
    return shortest_side(branch.size, fit or prepare.fit, prepare.crop_ratio)
