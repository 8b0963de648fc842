"""Dense results in a few numbers, on fields whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from app.vision.summaries import depth_normalized, depth_summary, motion_summary


def test_a_ramp_s_depth_is_known() -> None:
    """On a ramp from 0 to 1 the percentiles, the range and the slope follow from its width."""
    ramp = np.tile(np.linspace(0, 1, 101, dtype=np.float32), (50, 1))
    found = depth_summary(ramp)
    assert found["depth_mean"] == pytest.approx(0.5)
    assert (found["depth_p05"], found["depth_p95"]) == pytest.approx((0.05, 0.95))
    assert found["depth_range_robust"] == pytest.approx(0.9)
    # 90 of 100 steps lie between the percentiles, each 0.01 / 0.9 high
    assert found["depth_complexity_score"] == pytest.approx(0.01, rel=1e-3)


def test_depth_without_range_is_flat() -> None:
    """A wall has no complexity, and dividing by its range is not tried."""
    wall = np.full((8, 8), 3.5, np.float32)
    assert depth_summary(wall)["depth_complexity_score"] == 0
    assert not depth_normalized(wall).any()


def test_normalised_depth_is_robust() -> None:
    """One wild pixel doesn't squeeze all the others."""
    depth = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (100, 1))
    depth[0, 0] = 1e6
    level = depth_normalized(depth)
    assert level.min() == 0
    assert level.max() == 1
    assert level[50, 50] == pytest.approx(0.5, abs=0.02)


def test_a_shift_has_one_direction() -> None:
    """3 right and 4 down in half a second on a 100 x 50 frame: 0.1 frame sides a second, no dispersion."""
    flow = np.stack([np.full((5, 7), 3, np.float32), np.full((5, 7), 4, np.float32)])
    found = motion_summary(flow, 100, 50, 0.5)
    assert found["motion_norm_per_sec_mean"] == pytest.approx(0.1)
    assert found["flow_mag_p95_per_sec_norm"] == pytest.approx(0.1)
    assert found["flow_mag_std_per_sec_norm"] == pytest.approx(0)
    assert (found["flow_dx_mean_per_sec_norm"], found["flow_dy_mean_per_sec_norm"]) == pytest.approx(
        (0.06, 0.08)
    )
    assert (found["flow_dir_cos_mean"], found["flow_dir_sin_mean"]) == pytest.approx((0.6, 0.8))
    assert found["flow_dir_dispersion"] == pytest.approx(0)


def test_opposite_halves_cancel_out() -> None:
    """Equal motion to the left and to the right is full dispersion."""
    flow = np.zeros((2, 4, 8), np.float32)
    flow[0, :, :4], flow[0, :, 4:] = -2, 2
    found = motion_summary(flow, 8, 8, 1.0)
    assert found["flow_dir_dispersion"] == pytest.approx(1)
    assert found["motion_norm_per_sec_mean"] == pytest.approx(0.25)


def test_what_stands_still_has_no_direction() -> None:
    """Without motion a direction would be invented."""
    found = motion_summary(np.zeros((2, 4, 4), np.float32), 4, 4, 0.1)
    assert found["motion_norm_per_sec_mean"] == 0
    assert np.isnan([found[f"flow_dir_{name}"] for name in ("sin_mean", "cos_mean", "dispersion")]).all()
