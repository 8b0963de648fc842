"""From YOLO11's raw output to boxes, against the reference's own answers."""

from __future__ import annotations

import numpy as np
import pytest
from golden.detect_cases import Case, cases, facts
from golden.matching import Answer, pair
from numpy.typing import NDArray

from app.vision.letterbox import Letterbox
from app.vision.yolo import Candidates, decode, detect

CONF, IOU, MAX_DET = facts()["conf"], facts()["iou"], facts()["max_det"]
Output = NDArray[np.float32]


@pytest.fixture(params=cases(), ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    """One picture at one size."""
    golden: Case = request.param
    return golden


def in_source(case: Case, found: Candidates) -> Answer:
    """Return the result of `detect` with the letterbox undone."""
    undone = Letterbox.fit(case.width, case.height, case.size).undo(found.boxes)
    return Answer.of(undone, found.scores, found.class_ids)


def test_golden_data_are_worth_comparing() -> None:
    """At every size the golden data hold at least 24 pictures, and detections in at least 20 of them."""
    for size in (320, 640, 960):
        at_size = [golden for golden in cases() if golden.size == size]
        assert len(at_size) >= 24
        assert sum(len(golden.scores) > 0 for golden in at_size) >= 20


def test_detect_keeps_the_reference_s_anchors(case: Case) -> None:
    """In letterbox pixels boxes, classes, scores and order are the reference's own, bit for bit."""
    found = detect(case.output0(), CONF, IOU, MAX_DET)
    np.testing.assert_array_equal(found.class_ids, case.class_ids)
    np.testing.assert_array_equal(found.scores, case.scores)
    np.testing.assert_array_equal(found.boxes, case.kept_boxes())


def test_boxes_in_source_pixels_are_the_reference_s(case: Case) -> None:
    """With the letterbox undone every box matches the reference's: IoU > 0.999, scores within 1e-6, no extra."""
    found = in_source(case, detect(case.output0(), CONF, IOU, MAX_DET))
    reference = Answer.of(case.boxes, case.scores, case.class_ids)
    assert len(found.scores) == len(reference.scores)
    for match in pair(reference, found):
        assert match.iou > 0.999
        assert match.score_difference <= 1e-6
    np.testing.assert_allclose(found.boxes, reference.boxes, rtol=0, atol=2e-3)


def test_classes_filter_before_the_suppression(case: Case) -> None:
    """Asked for one class, the answer is the reference's detections of this class."""
    for class_id in (0, 5):
        found = detect(case.output0(), CONF, IOU, MAX_DET, classes=[class_id])
        wanted = case.class_ids == class_id
        np.testing.assert_array_equal(found.boxes, case.kept_boxes()[wanted])
        assert set(found.class_ids.tolist()) <= {class_id}


def one(*columns: tuple[tuple[float, float, float, float], dict[int, float]], anchors: int = 8400) -> Output:
    """An output `[1, 84, anchors]` whose last anchors hold these boxes (xywh) and class scores."""
    output = np.zeros((1, 84, anchors), dtype=np.float32)
    for at, (box, scores) in enumerate(columns, anchors - len(columns)):
        output[0, :4, at] = box
        for class_id, score in scores.items():
            output[0, 4 + class_id, at] = score
    return output


def dtypes(found: Candidates) -> list[str]:
    return [str(array.dtype) for array in (found.boxes, found.scores, found.class_ids)]


def test_decode_reads_centre_and_size() -> None:
    """A column's centre and size become corners, its best class the class."""
    found = decode(one(((100, 50, 40, 20), {3: 0.4, 79: 0.75})), 0.25)
    np.testing.assert_array_equal(found.boxes, np.array([[80, 40, 120, 60]], np.float32))
    assert found.scores.tolist() == [0.75]
    assert found.class_ids.tolist() == [79]
    assert dtypes(found) == ["float32", "float32", "int32"]


def test_conf_itself_is_not_enough() -> None:
    """A score must be greater than `conf`, as in the reference."""
    output = one(
        ((10, 10, 4, 4), {0: 0.25}), ((90, 90, 4, 4), {0: np.nextafter(np.float32(0.25), np.float32(1))})
    )
    assert decode(output, 0.25).boxes[:, 0].tolist() == [88]


def test_equal_class_scores_take_the_lower_class() -> None:
    """Between equal scores the first class wins, so that an answer never depends on chance."""
    assert decode(one(((10, 10, 4, 4), {7: 0.5, 2: 0.5})), 0.25).class_ids.tolist() == [2]


def test_no_candidates_no_boxes() -> None:
    """An output of zeros gives empty arrays of the right shapes and types."""
    found = detect(np.zeros((1, 84, 2100), np.float32), CONF, IOU, MAX_DET)
    assert (found.boxes.shape, found.scores.shape, found.class_ids.shape) == ((0, 4), (0,), (0,))
    assert dtypes(found) == ["float32", "float32", "int32"]


def test_classes_may_be_empty() -> None:
    """A filter without classes keeps nothing; a filter by a second-best class doesn't bring it up."""
    output = one(((10, 10, 4, 4), {7: 0.5, 2: 0.4}))
    assert len(decode(output, 0.25, classes=[]).scores) == 0
    assert len(decode(output, 0.25, classes=[2]).scores) == 0
    assert len(decode(output, 0.25, classes=[7, 2]).scores) == 1


def test_agnostic_lets_classes_suppress_each_other() -> None:
    """One box under two classes is two detections, and one where classes don't count."""
    output = one(((50, 50, 20, 20), {0: 0.9}), ((50, 50, 20, 20), {1: 0.8}))
    assert detect(output, 0.25, 0.7, 300).class_ids.tolist() == [0, 1]
    assert detect(output, 0.25, 0.7, 300, agnostic=True).class_ids.tolist() == [0]


def test_max_det_keeps_the_best_scores() -> None:
    """The best `max_det` of many separate boxes are answered, best first."""
    columns = [((20.0 * i + 10, 10.0, 8.0, 8.0), {i % 80: 0.3 + 0.02 * i}) for i in range(30)]
    found = detect(one(*columns), 0.25, 0.7, 5)
    np.testing.assert_allclose(found.scores, [0.88, 0.86, 0.84, 0.82, 0.8], rtol=1e-6)


BROKEN = {"nan": np.nan, "inf": np.inf, "minus_inf": -np.inf, "overflow": float(np.finfo(np.float32).max)}
GOOD = ((100.0, 100.0, 40.0, 40.0), {0: 0.9})


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("row", [0, 1, 2, 3, 4, 83])
def test_broken_numbers_never_reach_an_answer(broken: str, row: int) -> None:
    """A column with a NaN or an infinity is dropped without a warning; the good one beside it stays."""
    output = one(GOOD, ((300, 300, 40, 40), {5: 0.8}))
    output[0, row, -1] = BROKEN[broken]
    found = detect(output, 0.25, 0.7, 300)
    assert np.isfinite(found.boxes).all()
    assert np.isfinite(found.scores).all()
    assert [80, 80, 120, 120] in found.boxes.tolist()
    undone = Letterbox.fit(1280, 720, 640).undo(found.boxes)
    assert np.isfinite(undone).all()


@pytest.mark.parametrize("broken", BROKEN)
def test_an_output_of_nothing_but_broken_numbers(broken: str) -> None:
    """A model that has gone numerically wrong everywhere answers nothing that is not finite, and raises nothing."""
    output = np.full((1, 84, 2100), BROKEN[broken], dtype=np.float32)
    found = detect(output, 0.25, 0.7, 300)
    assert np.isfinite(found.boxes).all()
    assert np.isfinite(found.scores).all()


def test_the_output_is_left_alone() -> None:
    """Decoding reads the lease's tensor and writes none of it."""
    output = one(GOOD, ((300, 300, 40, 40), {5: 0.8}))
    before = output.copy()
    detect(output, 0.25, 0.7, 300, classes=[5], agnostic=True)
    np.testing.assert_array_equal(output, before)
