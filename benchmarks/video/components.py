"""Straight loop of all five components over a video's frames: prepare, call, and the numbers that artefacts hold."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.vision.summaries import depth_summary, motion_summary
from benchmarks.common.squares import Squares
from benchmarks.speed.limit import Planes, Rig, Tensors, suppress
from routing.catalogue import Branch, Catalogue

BRANCHES = ("yolo11n_640", "midas_256", "raft_256", "clip_image_224", "places365_resnet50_224")
PROFILE = """schema_version: 1
sampling: {{fps: {fps}}}
components:
  core_object_detections: {{variant: n, branch: yolo11n_640}}
  core_depth_midas: {{branch: midas_256}}
  core_optical_flow: {{branch: raft_256}}
  core_clip: {{branch: clip_image_224}}
  places365: {{branch: places365_resnet50_224}}
"""
_SECONDS = 0.5  # between two frames; which number it is costs nothing
Rgb = NDArray[np.uint8]


class ComponentsLane:
    """One frame in flight, through the five components one after another."""

    def __init__(self, rig: Rig, catalogue: Catalogue) -> None:
        branches = [catalogue.branches[name] for name in BRANCHES]
        self._detect, self._depth, self._flow, self._clip, self._places = (
            Tensors(rig, branch) for branch in branches
        )
        self._planes = Planes(self._detect.inputs[0][0], self._detect.size)
        self._squares = {branch.family: _squares(branch, catalogue) for branch in branches[1:]}

    def __call__(self, rgb: Rgb, previous: Rgb | None) -> list[Any]:
        """The rows of one frame; the first frame of a video has no motion."""
        geometry = self._planes.fill(rgb)
        self._detect.run()
        boxes, scores, classes = suppress(self._detect.output[0])
        rows: list[Any] = [geometry.undo(boxes), scores, classes]
        rows.append(depth_summary(self._answer(self._depth, "depth", [rgb]).copy()))
        if previous is not None:
            values = self._answer(self._flow, "flow", [previous, rgb])
            height, width = rgb.shape[:2]
            rows.append(motion_summary(values.copy(), width, height, _SECONDS))
        vector = self._answer(self._clip, "clip_image", [rgb])
        rows.append(vector / np.linalg.norm(vector))
        logits = self._answer(self._places, "places", [rgb])
        weights = np.exp(logits - logits.max())
        rows.append((np.argsort(-weights, kind="stable")[:5], weights / weights.sum()))
        return rows

    def _answer(self, tensors: Tensors, family: str, frames: list[Rgb]) -> NDArray[np.float32]:
        for rgb, square in zip(frames, tensors.squares, strict=True):
            self._squares[family].fill(rgb, square)
        tensors.run()
        answer: NDArray[np.float32] = tensors.output[0]
        return answer


def _squares(branch: Branch, catalogue: Catalogue) -> Squares:
    return Squares(branch.size or 0, catalogue[branch.family])


def straight(lanes: list[ComponentsLane], frames: Iterable[Any]) -> int:
    """Run decoded frames through the lanes, a thread each; the thread that is free decodes the next. Answers how many
    frames there were.
    """
    iterator, turn, count = iter(frames), threading.Lock(), 0
    previous: Rgb | None = None

    def work(lane: ComponentsLane) -> None:
        nonlocal previous, count
        while True:
            with turn:
                rgb = next(iterator, None)
                if rgb is None:
                    return
                before, previous = previous, rgb
                count += 1
            lane(rgb, before)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count
