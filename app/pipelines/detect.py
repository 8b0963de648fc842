"""Frames to boxes: decode -> route -> letterbox into the lease -> run -> decode, NMS, source pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app.engine.base import Deadline
from app.media.fit import letterbox_into, letterbox_pixels_into
from app.media.image import ImageLimits, decode_image
from app.media.overlays import draw_boxes, picture_bytes
from app.metrics import Metrics
from app.pipelines.base import Framed, Router, Served, Timings, leased, observe, on_branch
from app.vision.letterbox import Letterbox
from app.vision.yolo import detect
from routing.policy import Decision, FrameFacts, Wishes


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

    def class_name(self, class_id: int) -> str:
        return self.labels[class_id] if class_id < len(self.labels) else f"class {class_id}"

    def picture(self, *, jpeg: bool = False) -> bytes:
        """PNG or JPEG of the frame with boxes, class names and scores drawn."""
        labels = [
            f"{self.class_name(int(class_id))} {score:.2f}"
            for class_id, score in zip(self.class_ids, self.scores, strict=True)
        ]
        return picture_bytes(draw_boxes(self.rgb, self.boxes, self.class_ids, labels), jpeg=jpeg)


def without_pixels(found: Detections) -> Detections:
    """The same boxes without the frame's memory: only its shape is kept, while the frame waits for its turn."""
    return replace(found, rgb=np.broadcast_to(np.uint8(0), found.rgb.shape))


@dataclass(frozen=True, slots=True)
class DetectPipeline:
    """See the module; safe to call from many threads."""

    router: Router
    metrics: Metrics
    limits: ImageLimits

    def labels(self, branch_labels: Sequence[str] = ()) -> Sequence[str]:
        """Class names: the weights' own, else the catalogue's."""
        return branch_labels or self.router.catalogue["detect"].labels

    def __call__(
        self, data: bytes, parameters: DetectParameters, wishes: Wishes, deadline: Deadline
    ) -> Detections:
        """Detect objects in one encoded picture.

        Raises:
            GatewayError: see `decode_image`, `Router.decide`, `Engine.lease` and `Lease.run`.
        """
        timings = Timings()
        deadline.check("queue")
        with timings.stage("decode"):
            rgb = decode_image(data, self.limits)
        deadline.check("decode")
        height, width = rgb.shape[:2]
        facts = FrameFacts(width, height, parameters.analysis_width, parameters.analysis_height)
        return self.on_frame(rgb, Framed(facts, wishes, deadline, timings), parameters)

    def on_frame(self, rgb: NDArray[np.uint8], framed: Framed, parameters: DetectParameters) -> Detections:
        """Detect objects in one decoded frame `[height, width, 3]` uint8 RGB."""
        return on_branch(
            self.router, "detect", framed, lambda decision: self._run(decision, rgb, framed, parameters)
        )

    def _run(
        self, decision: Decision, rgb: NDArray[np.uint8], framed: Framed, parameters: DetectParameters
    ) -> Detections:
        family = self.router.catalogue["detect"]
        deadline, timings = framed.deadline, framed.timings
        branch = decision.branch
        geometry = Letterbox.fit(rgb.shape[1], rgb.shape[0], branch.size or 0)
        with leased(self.router.engine, branch, deadline, timings) as lease:
            with timings.stage("prepare"):
                place = letterbox_into if branch.twin_of is None else letterbox_pixels_into
                place(rgb, geometry, lease.inputs[branch.inputs[0].name], lease.workspace)
            deadline.check("prepare")
            with timings.stage("infer"):
                lease.run(deadline)
            deadline.check("infer")
            with timings.stage("finish"):
                found = detect(
                    lease.outputs["output0"],
                    parameters.conf,
                    parameters.iou,
                    parameters.max_det,
                    parameters.classes,
                    agnostic=parameters.agnostic,
                )
                boxes = geometry.undo(found.boxes)
            deadline.check("finish")
            model = lease.model
        served = Served(family, decision, model, timings)
        observe(self.metrics, served)
        labels = self.labels(model.weights.labels)
        return Detections(boxes, found.scores, found.class_ids, labels, rgb, served)
