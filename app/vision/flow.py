"""Optical flow: back to source pixels, in numbers and in the Middlebury colours."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray


def scale_to(flow: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Displacements of a branch's square in pixels of the source; each axis has its own ratio.

    Args:
        flow: `[2, S, S]` float32, x and y in pixels of the square.
        width: of the source, in pixels.
        height: of the source, in pixels.

    Returns:
        `[2, S, S]` float32, x and y in source pixels; a new array.
    """
    size = flow.shape[-1]
    ratio = np.array([width / size, height / size], dtype=np.float32)
    return flow * ratio[:, None, None]


def statistics(flow: NDArray[np.float32]) -> dict[str, float]:
    """Return mean displacement and its length for a flow `[2, H, W]` in pixels per frame pair."""
    magnitude = np.hypot(flow[0], flow[1])
    return {
        "dx_mean": float(flow[0].mean()),
        "dy_mean": float(flow[1].mean()),
        "magnitude_mean": float(magnitude.mean()),
        "magnitude_std": float(magnitude.std()),
        "magnitude_p95": float(np.percentile(magnitude, 95)),
        "magnitude_max": float(magnitude.max()),
    }


def colours(flow: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The Middlebury colour wheel: hue is direction, saturation is length (Baker et al., IJCV 2011).

    Args:
        flow: `[2, H, W]` float32; lengths are relative to the greatest.

    Returns:
        `[H, W, 3]` uint8 RGB; white where nothing moves.
    """
    magnitude = np.hypot(flow[0], flow[1])
    greatest = float(magnitude.max(initial=0.0))
    radius = magnitude / greatest if greatest > 0 else magnitude
    wheel = _wheel()
    angle = np.arctan2(-flow[1], -flow[0]) / np.pi
    position = (angle + 1) / 2 * (len(wheel) - 1)
    lower = np.floor(position).astype(np.intp)
    part = (position - lower)[..., None]
    hue = wheel[lower] * (1 - part) + wheel[(lower + 1) % len(wheel)] * part
    picture: NDArray[np.uint8] = np.floor(255 * (1 - radius[..., None] * (1 - hue))).astype(np.uint8)
    return picture


@functools.cache
def _wheel() -> NDArray[np.float64]:
    """`[55, 3]` in `[0, 1]`: six arcs between the primary colours, as long as the eye tells hues apart there."""
    arcs = ((15, (1, 0, 0), (1, 1, 0)), (6, (1, 1, 0), (0, 1, 0)), (4, (0, 1, 0), (0, 1, 1)),
            (11, (0, 1, 1), (0, 0, 1)), (13, (0, 0, 1), (1, 0, 1)), (6, (1, 0, 1), (1, 0, 0)))  # fmt: skip
    rows = [
        np.asarray(start) + (np.asarray(end) - np.asarray(start)) * step / steps
        for steps, start, end in arcs
        for step in range(steps)
    ]
    return np.stack(rows)
