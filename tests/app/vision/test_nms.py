"""Suppression equal to a brute force that shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from app.vision import yolo as module
from app.vision.yolo import nms

Boxes = NDArray[np.float32]


def overlap(a: Boxes, b: Boxes) -> float:
    """IoU of two boxes `(4,)` in float64; 0 where both are empty."""
    ax1, ay1, ax2, ay2 = map(float, a)
    bx1, by1, bx2, by2 = map(float, b)
    shared = max(min(ax2, bx2) - max(ax1, bx1), 0.0) * max(min(ay2, by2) - max(ay1, by1), 0.0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    return shared / union if union > 0 else 0.0


def brute_force(
    boxes: Boxes, scores: Boxes, class_ids: NDArray[np.int32] | None, iou: float, max_det: int
) -> list[int]:
    """A row is kept unless a kept row of its class, ahead of it, overlaps it by more than `iou`."""
    kept: list[int] = []
    for row in sorted(range(len(scores)), key=lambda index: (-float(scores[index]), index)):
        same = [k for k in kept if class_ids is None or class_ids[k] == class_ids[row]]
        if all(overlap(boxes[k], boxes[row]) <= iou for k in same):
            kept.append(row)
    return kept[:max_det]


def cloud(
    seed: int, count: int, classes: int = 3, grid: bool = False
) -> tuple[Boxes, Boxes, NDArray[np.int32]]:
    """Random boxes that overlap a lot; on a grid, corners and scores repeat."""
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(0, 60, (count, 2)), rng.uniform(1, 40, (count, 2))
    scores = rng.uniform(0.01, 1, count)
    if grid:
        corner, side, scores = corner // 10 * 10, side // 10 * 10 + 10, np.ceil(scores * 4) / 4
    boxes = np.concatenate((corner, corner + side), axis=1).astype(np.float32)
    return boxes, scores.astype(np.float32), rng.integers(0, classes, count).astype(np.int32)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("iou", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_equals_brute_force(seed: int, iou: float) -> None:
    """Random overlapping boxes of three classes: the same rows in the same order."""
    boxes, scores, class_ids = cloud(seed, 80)
    assert nms(boxes, scores, class_ids, iou, 300).tolist() == brute_force(boxes, scores, class_ids, iou, 300)


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("count", [1, 2, 7, 31, 32])
@pytest.mark.parametrize("iou", [0.0, 0.45, 0.7, 1.0])
def test_few_boxes_are_judged_as_many_are(
    count: int, iou: float, *, grid: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without arrays the same rows are kept, ties, other classes and `max_det` included."""
    for seed in range(20):
        boxes, scores, class_ids = cloud(seed, count, grid=grid)
        boxes[::5, 2] = boxes[::5, 0]  # without area
        cases = [(boxes, scores, ids, iou, most) for ids in (class_ids, None) for most in (300, 5)]
        few = [nms(*case) for case in cases]
        with monkeypatch.context() as patch:
            patch.setattr(module, "_FEW", 0)
            many = [nms(*case) for case in cases]
        assert [rows.dtype for rows in few] == [rows.dtype for rows in many]
        assert [rows.tolist() for rows in few] == [rows.tolist() for rows in many]


@pytest.mark.parametrize("seed", range(20))
def test_ties_keep_the_earlier_row(seed: int) -> None:
    """Equal scores are taken in the order of the rows, equal boxes leave the first."""
    boxes, scores, class_ids = cloud(seed, 120, grid=True)
    assert len(np.unique(scores)) < len(scores)
    assert nms(boxes, scores, class_ids, 0.5, 300).tolist() == brute_force(boxes, scores, class_ids, 0.5, 300)


@pytest.mark.parametrize("seed", range(10))
def test_agnostic_ignores_classes(seed: int) -> None:
    """Without class ids boxes of all classes suppress each other."""
    boxes, scores, class_ids = cloud(seed, 80)
    kept = nms(boxes, scores, None, 0.4, 300).tolist()
    assert kept == brute_force(boxes, scores, None, 0.4, 300)
    assert len(kept) < len(nms(boxes, scores, class_ids, 0.4, 300))


@pytest.mark.parametrize("max_det", [1, 2, 7, 1000])
@pytest.mark.parametrize("classes", [1, 3, 80])
def test_max_det_keeps_the_best(max_det: int, classes: int) -> None:
    """At most `max_det` rows, and they are the best of all classes together."""
    boxes, scores, class_ids = cloud(5, 150, classes)
    kept = nms(boxes, scores, class_ids, 0.5, max_det).tolist()
    assert kept == brute_force(boxes, scores, class_ids, 0.5, max_det)
    assert len(kept) <= max_det


@pytest.mark.parametrize("classes", [1, 80])
def test_a_whole_output_of_candidates(classes: int) -> None:
    """8,400 candidates, all anchors of a 640 branch: still the brute force's rows."""
    rng = np.random.default_rng(classes)
    centre = rng.uniform(0, 640, (200, 2)).repeat(42, axis=0) + rng.normal(0, 3, (8400, 2))
    half = rng.uniform(10, 60, (200, 2)).repeat(42, axis=0) + rng.normal(0, 1, (8400, 2))
    boxes = np.concatenate((centre - half, centre + half), axis=1).astype(np.float32)
    scores = rng.uniform(0.25, 1, 8400).astype(np.float32)
    class_ids = rng.integers(0, classes, 200).repeat(42).astype(np.int32)
    kept = nms(boxes, scores, class_ids, 0.7, 300)
    assert kept.tolist() == brute_force_until(boxes, scores, class_ids, 0.7, 300)


def brute_force_until(
    boxes: Boxes, scores: Boxes, class_ids: NDArray[np.int32], iou: float, max_det: int
) -> list[int]:
    """`brute_force` that stops at `max_det`: what comes later can't change what came before."""
    kept: list[int] = []
    for row in sorted(range(len(scores)), key=lambda index: (-float(scores[index]), index)):
        if len(kept) == max_det:
            break
        same = [k for k in kept if class_ids[k] == class_ids[row]]
        if all(overlap(boxes[k], boxes[row]) <= iou for k in same):
            kept.append(row)
    return kept


@pytest.mark.parametrize(("height", "iou"), [(5, 0.5), (7, 0.7), (1, 0.1), (10, 1.0)])
def test_iou_at_the_threshold_is_kept(height: int, iou: float) -> None:
    """A box whose IoU equals the threshold stays; one hair less of a threshold and it goes."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, height]], dtype=np.float32)
    scores = np.array([0.9, 0.8], dtype=np.float32)
    class_ids = np.zeros(2, dtype=np.int32)
    assert nms(boxes, scores, class_ids, iou, 10).tolist() == [0, 1]
    assert nms(boxes, scores, class_ids, iou - 1e-6, 10).tolist() == [0]


@pytest.mark.parametrize("class_ids", [None, np.zeros(0, dtype=np.int32)], ids=["agnostic", "classes"])
def test_nothing_in_nothing_out(class_ids: NDArray[np.int32] | None) -> None:
    """No candidates give no rows, as integers that can index."""
    kept = nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), class_ids, 0.7, 300)
    assert kept.shape == (0,)
    assert np.issubdtype(kept.dtype, np.integer)


def test_one_box_is_kept() -> None:
    """A single candidate is its own answer."""
    box = np.array([[1, 2, 3, 4]], dtype=np.float32)
    assert nms(box, np.ones(1, np.float32), np.zeros(1, np.int32), 0.0, 1).tolist() == [0]


def test_boxes_without_area_suppress_nothing() -> None:
    """Points and lines overlap nothing, not even themselves, and divide nothing by zero."""
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [0, 5, 9, 5], [0, 0, 10, 10]], dtype=np.float32)
    scores = np.array([0.9, 0.8, 0.7, 0.6], dtype=np.float32)
    assert nms(boxes, scores, np.zeros(4, np.int32), 0.0, 10).tolist() == [0, 1, 2, 3]


def test_classes_far_apart_need_no_offset() -> None:
    """Large coordinates of high class ids are compared exactly, where an offset of 7680 a class would round."""
    boxes = np.array([[7000, 7000, 7001, 7001], [7000.3, 7000, 7001.3, 7001]], dtype=np.float32)
    scores = np.array([0.9, 0.8], dtype=np.float32)
    class_ids = np.full(2, 79, dtype=np.int32)
    assert overlap(*boxes) < 0.55
    assert nms(boxes, scores, class_ids, 0.55, 10).tolist() == [0, 1]
    assert nms(boxes, scores, class_ids, 0.53, 10).tolist() == [0]


def test_inputs_are_left_alone() -> None:
    """The suppression reads its arrays and writes none of them."""
    boxes, scores, class_ids = cloud(11, 50)
    copies = boxes.copy(), scores.copy(), class_ids.copy()
    nms(boxes, scores, class_ids, 0.5, 300)
    for array, copy in zip((boxes, scores, class_ids), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
