"""A frame's dense result in a few numbers, as the artefacts keep it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def depth_normalized(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """A depth map on `[0, 1]`: its 5th percentile is 0, its 95th is 1, what lies beyond is clipped.

    Args:
        depth: `[H, W]` float32, relative inverse depth (greater is nearer, no unit).

    Returns:
        `[H, W]` float32; zeros where both percentiles are one value.
    """
    p05, p95 = np.percentile(depth, (5, 95))
    return _between(depth, float(p05), float(p95))


def depth_summary(depth: NDArray[np.float32]) -> dict[str, float]:
    """Statistics of one map `[H, W]` float32 of relative inverse depth.

    Returns:
        `depth_mean`, `depth_std`, `depth_p05`, `depth_p95`, `depth_range_robust` (`p95 - p05`), all in the map's own
        unit, and `depth_complexity_score`: the mean length of the gradient (forward differences, per pixel) of the
        map on `[0, 1]` as `depth_normalized` makes it; 0 for a flat wall, greater the more edges there are.
    """
    p05, p95 = (float(value) for value in np.percentile(depth, (5, 95)))
    level = _between(depth, p05, p95)
    slope = np.hypot(np.diff(level, axis=1)[:-1], np.diff(level, axis=0)[:, :-1])
    return {
        "depth_mean": float(depth.mean(dtype=np.float64)),
        "depth_std": float(depth.std(dtype=np.float64)),
        "depth_p05": p05,
        "depth_p95": p95,
        "depth_range_robust": p95 - p05,
        "depth_complexity_score": float(slope.mean(dtype=np.float64)) if slope.size else 0.0,
    }


def motion_summary(flow: NDArray[np.float32], width: int, height: int, dt_seconds: float) -> dict[str, float]:
    """Statistics of one flow field, per second and relative to the frame.

    Args:
        flow: `[2, H, W]` float32, x and y in source pixels.
        width: of the source, in pixels.
        height: of the source, in pixels.
        dt_seconds: time between the two frames, positive.

    Returns:
        Displacements divided by `dt_seconds` and by `max(width, height)`: `motion_norm_per_sec_mean`,
        `flow_mag_std_per_sec_norm`, `flow_mag_p95_per_sec_norm`, `flow_dx_mean_per_sec_norm`,
        `flow_dy_mean_per_sec_norm`. Directions weighted by length, so that noise of what stands still has no say:
        `flow_dir_sin_mean` and `flow_dir_cos_mean` (of the angle from x to y, which points down) and
        `flow_dir_dispersion` `= 1 - hypot(sin, cos)`: 0 where all moves one way, 1 where directions cancel out
        (circular statistics, Mardia & Jupp 2000, 2.2). The three are NaN where nothing moves.
    """
    scale = 1.0 / (dt_seconds * max(width, height))
    dx, dy = flow[0].astype(np.float64), flow[1].astype(np.float64)
    length = np.hypot(dx, dy)
    total = float(length.sum())
    sine = float(dy.sum()) / total if total > 0 else np.nan
    cosine = float(dx.sum()) / total if total > 0 else np.nan
    return {
        "motion_norm_per_sec_mean": float(length.mean()) * scale,
        "flow_mag_std_per_sec_norm": float(length.std()) * scale,
        "flow_mag_p95_per_sec_norm": float(np.percentile(length, 95)) * scale,
        "flow_dx_mean_per_sec_norm": float(dx.mean()) * scale,
        "flow_dy_mean_per_sec_norm": float(dy.mean()) * scale,
        "flow_dir_sin_mean": sine,
        "flow_dir_cos_mean": cosine,
        "flow_dir_dispersion": max(0.0, 1.0 - float(np.hypot(sine, cosine))) if total > 0 else np.nan,
    }


def _between(values: NDArray[np.float32], least: float, greatest: float) -> NDArray[np.float32]:
    span = greatest - least
    if span <= 0:
        return np.zeros_like(values)
    level: NDArray[np.float32] = (values - np.float32(least)) / np.float32(span)
    return np.clip(level, np.float32(0), np.float32(1), out=level)
