"""The Kalman filter: equal to the published one of 8x8 matrices, at any time between frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.paths import ROOT

from app.vision import kalman

GOLDEN = ROOT / "tests" / "helpers" / "golden" / "bytetrack.npz"
COORDINATES = {0: 0, 1: 0, 2: 1, 3: 0}  # coordinate -> which of the two covariances it has
SIDES = st.floats(0.01, 5000)
TIMES = st.floats(0.01, 50)


def a_state(width: float = 40, height: float = 100, velocity: float = 0.0) -> NDArray[np.float64]:
    """A box that has been seen a few times, moving evenly, its size constant."""
    corners = np.array([[100.0], [50.0], [100 + width], [50 + height]])
    states = kalman.initiate(kalman.measure(corners))
    for _ in range(4):
        corners[[0, 2]] += velocity
        kalman.predict(states, 1.0)
        kalman.update(states, kalman.measure(corners))
    states[[6, 7]] = 0
    return states


def covariance(states: NDArray[np.float64], coordinate: int) -> NDArray[np.float64]:
    """2x2 of one coordinate's position and velocity."""
    position, mixed, velocity = states[8 + COORDINATES[coordinate] : 14 : 2, 0]
    return np.array([[position, mixed], [mixed, velocity]])


def test_it_is_the_published_filter() -> None:
    """Means and covariances equal those of the filter of 8x8 matrices, seen and unseen steps alike."""
    golden = np.load(GOLDEN)
    boxes = golden["filter_boxes"]
    states = kalman.initiate(kalman.measure(boxes[:1].T))
    for step, box in enumerate(boxes):
        if step:
            kalman.predict(states, 1.0)
            if np.isfinite(box).all():
                kalman.update(states, kalman.measure(box[:, None]))
        np.testing.assert_allclose(states[:8, 0], golden["filter_means"][step], rtol=1e-9, atol=1e-9)
        full = golden["filter_covariances"][step]
        for coordinate in range(4):
            pair = [coordinate, coordinate + 4]
            np.testing.assert_allclose(
                covariance(states, coordinate), full[np.ix_(pair, pair)], rtol=1e-9, atol=1e-15
            )
            full[np.ix_(pair, pair)] = 0
        assert np.abs(full).max() < 1e-12, "the reference mixes coordinates"


@pytest.mark.parametrize("steps", [2, 3, 10])
def test_a_whole_time_is_so_many_steps(steps: int) -> None:
    """Predicting over a whole number of units at once equals as many predictions, the height being constant."""
    once, many = a_state(velocity=3), a_state(velocity=3)
    kalman.predict(once, float(steps))
    for _ in range(steps):
        kalman.predict(many, 1.0)
    np.testing.assert_allclose(once, many, rtol=1e-12)


@given(TIMES, TIMES)
def test_times_add_up(first: float, second: float) -> None:
    """Going on by s and then by t is going on by s + t, for real times, the height being constant."""
    once, twice = a_state(velocity=3), a_state(velocity=3)
    kalman.predict(once, first + second)
    kalman.predict(twice, first)
    kalman.predict(twice, second)
    np.testing.assert_allclose(once, twice, rtol=1e-9, atol=1e-12)


@given(SIDES, SIDES, st.lists(st.tuples(st.floats(0.001, 50), st.booleans()), max_size=20))
def test_covariances_stay_covariances(width: float, height: float, steps: list[tuple[float, bool]]) -> None:
    """Over any times, seen or not, the covariances are positive definite."""
    states = a_state(width, height)
    for time, seen in steps:
        kalman.predict(states, time)
        if seen:
            kalman.update(states, states[:4] * 1.01)
        for coordinate in range(4):
            assert np.linalg.eigvalsh(covariance(states, coordinate)).min() > 0


@given(TIMES, st.floats(0.1, 10))
def test_another_unit_changes_no_prediction(time: float, ratio: float) -> None:
    """After a change of the unit the same real time leads to the same boxes."""
    old, new = a_state(velocity=3), a_state(velocity=3)
    kalman.predict(old, time)
    kalman.rescale(new, ratio)
    kalman.predict(new, time / ratio)
    np.testing.assert_allclose(kalman.corners(old), kalman.corners(new), rtol=1e-9)


def test_boxes_do_not_influence_each_other() -> None:
    """Many boxes at once give exactly what each gives alone."""
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 500, (2, 2, 7)), axis=0).reshape(4, 7)
    together = kalman.initiate(kalman.measure(corners))
    alone = [kalman.initiate(kalman.measure(corners[:, [i]])) for i in range(7)]
    for states, seen in ((together, corners), *((alone[i], corners[:, [i]]) for i in range(7))):
        kalman.predict(states, 1.7)
        kalman.update(states, kalman.measure(seen + 5))
    np.testing.assert_array_equal(together, np.concatenate(alone, axis=1))


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), SIDES, SIDES)
def test_corners_undo_measure(x: float, y: float, width: float, height: float) -> None:
    """A box comes back from what is measured of it."""
    box = np.array([[x], [y], [x + width], [y + height]])
    np.testing.assert_allclose(kalman.corners(kalman.measure(box)), box, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize(
    "box", [[5, 5, 5, 5], [5, 5, 5, 9], [9, 9, 5, 5]], ids=["point", "line", "inside out"]
)
def test_boxes_without_area_can_be_measured(box: list[float]) -> None:
    """Their sides count as very short ones, so that the aspect is a positive number."""
    measured = kalman.measure(np.array(box, dtype=np.float64)[:, None])
    assert np.isfinite(measured).all()
    assert (measured[2:] > 0).all()


def test_heights_stay_positive() -> None:
    """A box that shrank is not predicted to turn upside down."""
    states = a_state()
    states[kalman.HEIGHT_VELOCITY] = -30
    kalman.predict(states, 60.0)
    assert 0 < states[kalman.HEIGHT, 0] < 1


@pytest.mark.parametrize("count", [0, 1])
def test_no_box_is_no_trouble(count: int) -> None:
    """Every function takes `(4, 0)` too."""
    states = kalman.initiate(kalman.measure(np.ones((4, count))))
    kalman.predict(states, 1.0)
    kalman.update(states, np.ones((4, count)))
    kalman.rescale(states, 2.0)
    assert kalman.corners(states).shape == (4, count)
