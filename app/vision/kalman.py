"""The constant-velocity Kalman filter of SORT, DeepSORT and ByteTrack, for many boxes at once.

The published filter has eight states (centre, aspect w/h, height, and their velocities) and 8x8 covariances. Its
transition, noise and observation never mix the four coordinates, so it is four filters of two states; and centre x,
centre y and height share all their noise, so they share one covariance too. What is left is a few sums and products
a box, done for all boxes in one go, without a matrix to invert.

States are float64 columns, one a box, in this order of rows (`unit` is the unit of time that the caller chose):

| rows  | what                                                                              |
|-------|-----------------------------------------------------------------------------------|
| 0-3   | centre x, centre y, aspect w/h, height (px)                                       |
| 4-7   | their velocities a unit                                                           |
| 8-9   | variance of the position: of centre x, centre y and height alike; of the aspect   |
| 10-11 | covariance of position and velocity, in the same two                              |
| 12-13 | variance of the velocity, in the same two                                         |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROWS = 14
HEIGHT, HEIGHT_VELOCITY = 3, 7
# Noise as the reference implementation has it: standard deviations a unit, in heights of the box; aspect absolute.
_POSITION, _VELOCITY = 1 / 20, 1 / 160
_ASPECT, _ASPECT_VELOCITY, _ASPECT_MEASURED = 1e-2, 1e-5, 1e-1
_GROUP = np.array([0, 0, 1, 0])  # which of the two covariances a coordinate has
_GROUP.setflags(write=False)
_SMALLEST = 1e-3  # px: sides are at least so long, for an aspect to exist


def measure(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert boxes `(4, n)` (rows x1 y1 x2 y2) to the filter's observations: rows 0-3 of its state."""
    sides = np.maximum(corners[2:] - corners[:2], _SMALLEST)
    measured = np.empty((4, corners.shape[1]))
    np.add(corners[:2], corners[2:], out=measured[:2])
    measured[:2] *= 0.5
    np.divide(sides[0], sides[1], out=measured[2])
    measured[3] = sides[1]
    return measured


def corners(states: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes `(4, n)`, rows x1 y1 x2 y2 in px, of states `(>=4, n)`."""
    half = np.empty((2, states.shape[1]))
    np.multiply(states[3], 0.5, out=half[1])
    np.multiply(states[2], half[1], out=half[0])
    boxes = np.empty((4, states.shape[1]))
    np.subtract(states[:2], half, out=boxes[:2])
    np.add(states[:2], half, out=boxes[2:])
    return boxes


def initiate(measured: NDArray[np.float64]) -> NDArray[np.float64]:
    """States `(14, n)` of boxes seen for the first time, at rest, from `measure`."""
    states = np.zeros((ROWS, measured.shape[1]))
    states[:4] = measured
    squared = measured[3] * measured[3]
    states[8] = (2 * _POSITION) ** 2 * squared
    states[9] = _ASPECT**2
    states[12] = (10 * _VELOCITY) ** 2 * squared
    states[13] = _ASPECT_VELOCITY**2
    return states


def predict(states: NDArray[np.float64], time: float) -> None:
    """Move states `(>=14, n)` on by `time` units (> 0), in place.

    For a whole `time` this is so many steps of the published filter at once, its noise that of the first step's
    height. Its covariance after `time` steps is a polynomial in `time`; taken at any real `time` that stays a
    covariance, and going on by `s` and then by `t` is going on by `s + t`.
    """
    squared = states[3] * states[3]
    states[:4] += time * states[4:8]
    np.maximum(states[HEIGHT], _SMALLEST, out=states[HEIGHT])
    drift = time * states[12:14]
    states[8:10] += time * (2 * states[10:12] + drift)
    states[10:12] += drift
    linear, square, cube = time, time * (time - 1) / 2, time * (time - 1) * (2 * time - 1) / 6
    box, aspect = (
        np.array(((linear * position + cube * velocity,), (square * velocity,), (linear * velocity,)))
        for position, velocity in ((_POSITION**2, _VELOCITY**2), (_ASPECT**2, _ASPECT_VELOCITY**2))
    )
    states[8:14:2] += box * squared
    states[9:14:2] += aspect


def update(states: NDArray[np.float64], measured: NDArray[np.float64]) -> None:
    """Correct states `(>=14, n)` by what was measured of them `(4, n)`, in place."""
    position, mixed, velocity = states[8:10], states[10:12], states[12:14]
    noise = np.empty_like(position)  # (2, n): variance of the measurement
    noise[0] = _POSITION**2 * (states[3] * states[3])
    noise[1] = _ASPECT_MEASURED**2
    total = position + noise  # of the innovation
    gain, velocity_gain, kept = position / total, mixed / total, noise / total
    innovation = measured - states[:4]
    states[:4] += gain.take(_GROUP, axis=0) * innovation
    states[4:8] += velocity_gain.take(_GROUP, axis=0) * innovation
    # p - p^2 / total is p * noise / total, which stays positive however much greater p is; as mixed^2 <= p * velocity,
    # the velocity's variance shrinks by no more than that either.
    np.maximum(velocity - velocity_gain * mixed, velocity * kept, out=velocity)
    mixed *= kept
    position *= kept


def rescale(states: NDArray[np.float64], ratio: float) -> None:
    """Go over to a unit of time `ratio` times as long, in place."""
    states[4:8] *= ratio
    states[10:12] *= ratio
    states[12:14] *= ratio * ratio
