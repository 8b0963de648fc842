"""Frames to boxes: decode -> route -> letterbox into the lease -> run -> decode, NMS, source pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.engine.base import Lease
from app.errors import GatewayError, InvalidParameter
from app.media.fit import letterbox_into, letterbox_pixels_into
from app.media.image import ImageLimits, decode_image
from app.media.overlays import draw_boxes, picture_bytes
from app.metrics import Metrics
from app.pipelines.base import Framed, Router, Served, Timings, leased, observe, on_branch
from app.pipelines.pipeline_set import LETTERBOX, PipelineParts
from app.vision.letterbox import Letterbox
from app.vision.yolo import detect
from routing.catalogue import Branch
from routing.policy import Decision, FrameFacts, Wishes

_ANY = Wishes()


@dataclass(frozen=True, slots=True)
class DetectParameters:
    """`conf`: a score must be greater; `iou`: same-class boxes that overlap more are one; `max_det`: most boxes.

    `classes`: class ids to keep (None: all); `agnostic`: suppress across classes. `analysis_*` in pixels steer
    routing only.
    """

    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    classes: Sequence[int] | None = None
    agnostic: bool = False
    analysis_width: int | None = None
    analysis_height: int | None = None


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes of one frame, best first.

    `boxes` `(n, 4)` float32 xyxy in source pixels, `scores` `(n,)` float32, `class_ids` `(n,)` int32;
    `rgb` is the decoded frame.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    labels: Sequence[str]
    rgb: NDArray[np.uint8]
    served: Served

    def names(self) -> list[str]:
        """The class name of each box."""
        labels, known = self.labels, len(self.labels)
        return [
            labels[class_id] if class_id < known else f"class {class_id}"
            for class_id in self.class_ids.tolist()
        ]

    def body(self, track_ids: Sequence[int | None] | None = None) -> dict[str, Any]:
        """Return the JSON answer without its provenance; `track_ids` of the boxes, where they have some."""
        height, width = self.rgb.shape[:2]
        rows = []
        for box, score, class_id, name, track in zip(
            self.boxes,
            self.scores,
            self.class_ids.tolist(),
            self.names(),
            track_ids or [None] * len(self.scores),
            strict=True,
        ):
            rows.append(
                {
                    "box": box,
                    "score": score,
                    "class_id": class_id,
                    "class_name": name,
                    "track_id": track,
                }
            )
        return {"detections": rows, "image": {"width": width, "height": height}}

    def picture(self, *, jpeg: bool = False) -> bytes:
        """PNG or JPEG of the frame with boxes, class names and scores drawn."""
        labels = [f"{name} {score:.2f}" for name, score in zip(self.names(), self.scores, strict=True)]
        return picture_bytes(draw_boxes(self.rgb, self.boxes, self.class_ids, labels), jpeg=jpeg)


def without_pixels(found: Detections) -> Detections:
    """The same boxes without the frame's memory: only its shape is kept, while the frame waits for its turn."""
    return replace(found, rgb=np.broadcast_to(np.uint8(0), found.rgb.shape))


@dataclass(frozen=True, slots=True)
class DetectPipeline:
    """See the module; safe to call from many threads."""

    family: ClassVar[str] = "detect"
    router: Router
    metrics: Metrics
    limits: ImageLimits

    @classmethod
    def made_from(cls, parts: PipelineParts) -> Self:
        return cls(parts.router, parts.metrics, parts.limits)

    def labels(self, wishes: Wishes = _ANY) -> Sequence[str]:
        """Class names of the variant that serves these wishes: its weights' own where they have some.

        Raises:
            InvalidParameter: there is no such variant.
        """
        branches = self.router.catalogue[self.family].of_variant(self.router.variant_of(self.family, wishes))
        states = self.router.engine.ready()
        known = (states[branch.name].weights.labels for branch in branches if branch.labels)
        return next(filter(None, known), branches[0].labels if branches else ())

    def __call__(
        self, data: bytes, parameters: DetectParameters, wishes: Wishes, deadline: Deadline
    ) -> Detections:
        """Detect objects in one encoded picture.

        Raises:
            GatewayError: see `decode_image`, `Router.decide`, `Engine.lease` and `Lease.run`.
        """
        timings = Timings()
        rgb = self._decoded(data, deadline, timings)
        return self.on_frame(rgb, _framed(rgb, parameters, wishes, deadline, timings), parameters)

    def several(
        self, data: bytes, asked: Sequence[tuple[DetectParameters, Wishes]], deadline: Deadline
    ) -> list[Detections | GatewayError]:
        """Detect objects in one encoded picture, which is decoded once, with each of several wishes.

        An error of one is in its place; the first has the time of decoding.

        Raises:
            GatewayError: see `decode_image`.
        """
        timings = Timings()
        rgb = self._decoded(data, deadline, timings)
        found: list[Detections | GatewayError] = []
        for parameters, wishes in asked:
            framed = _framed(rgb, parameters, wishes, deadline, timings)
            try:
                found.append(without_pixels(self.on_frame(rgb, framed, parameters)))
            except GatewayError as error:
                found.append(error)
            timings = Timings()
        return found

    def _decoded(self, data: bytes, deadline: Deadline, timings: Timings) -> NDArray[np.uint8]:
        deadline.check("queue")
        with timings.stage("decode"):
            rgb = decode_image(data, self.limits)
        deadline.check("decode")
        return rgb

    def on_frame(self, rgb: NDArray[np.uint8], framed: Framed, parameters: DetectParameters) -> Detections:
        """Detect objects in one decoded frame `[height, width, 3]` uint8 RGB."""
        return on_branch(
            self.router, self.family, framed, lambda decision: self._run(decision, rgb, framed, parameters)
        )

    def _run(
        self, decision: Decision, rgb: NDArray[np.uint8], framed: Framed, parameters: DetectParameters
    ) -> Detections:
        family = self.router.catalogue.families[self.family]
        deadline, timings = framed.deadline, framed.timings
        branch = decision.branch
        geometry = Letterbox.fit(rgb.shape[1], rgb.shape[0], branch.size or 0)
        with leased(self.router.engine, branch, deadline, timings) as lease:
            with timings.stage("prepare"):
                _place(rgb, geometry, lease, branch)
            deadline.check("prepare")
            with timings.stage("infer"):
                lease.run(deadline)
            deadline.check("infer")
            with timings.stage("finish"):
                found = detect(
                    lease.outputs[branch.outputs[0].name],
                    parameters.conf,
                    parameters.iou,
                    parameters.max_det,
                    parameters.classes,
                    agnostic=parameters.agnostic,
                )
                boxes = geometry.undo(found.boxes)
            deadline.check("finish")
            model = lease.model
        served = Served(family, decision, model, timings, LETTERBOX)
        observe(self.metrics, served)
        labels = model.weights.labels or branch.labels
        return Detections(boxes, found.scores, found.class_ids, labels, rgb, served)


def _framed(
    rgb: NDArray[np.uint8],
    parameters: DetectParameters,
    wishes: Wishes,
    deadline: Deadline,
    timings: Timings,
) -> Framed:
    height, width = rgb.shape[:2]
    facts = FrameFacts(width, height, parameters.analysis_width, parameters.analysis_height)
    return Framed(facts, wishes, deadline, timings)


def _place(rgb: NDArray[np.uint8], geometry: Letterbox, lease: Lease, branch: Branch) -> None:
    """The letterboxed frame in the branch's input, as its variant wants it."""
    target, prepare = lease.inputs[branch.inputs[0].name], branch.prepare
    if prepare is None:
        raise InvalidParameter(f"{branch.name} takes no frames")
    if branch.inputs[0].datatype == "UINT8":
        letterbox_pixels_into(rgb, geometry, target, lease.workspace, prepare.pad)
    else:
        letterbox_into(
            rgb, geometry, target, lease.workspace, prepare.pad, prepare.scale, prepare.mean, prepare.std
        )
