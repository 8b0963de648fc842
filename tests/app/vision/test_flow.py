"""Optical flow's colours are torchvision's, and its scale is the source's, shown on fields known by formula."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from golden.flow_fields import FIELDS, radial, turning
from golden.pictures import PROJECT

from app.media.resize import resize_map
from app.vision import flow as flows

GOLDEN = PROJECT / "tests" / "helpers" / "golden" / "flow_colours.npz"


@pytest.mark.parametrize("name", FIELDS)
def test_colours_are_torchvision_s(name: str) -> None:
    """The same wheel, to the rounding of its 55 colours (golden pictures of `flow_to_image`)."""
    with np.load(GOLDEN, allow_pickle=False) as golden:
        expected = golden[name].astype(int)
    picture = flows.colours(FIELDS[name]())
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("name", "most", "least"),
    [("right", "r", "gb"), ("down", "rg", "b"), ("left", "gb", "r"), ("up", "b", "g")],
)
def test_directions_have_middlebury_s_hues(name: str, most: str, least: str) -> None:
    """To the right is red, down yellow, left cyan, up violet: `y` grows downwards."""
    colour = dict(zip("rgb", flows.colours(FIELDS[name]())[0, 0].tolist(), strict=True))
    assert min(colour[channel] for channel in most) > 2 * max(colour[channel] for channel in least)


def test_nothing_that_moves_is_white() -> None:
    """Without motion there is no direction and no division by zero."""
    assert flows.colours(FIELDS["still"]()).min() == 255


def test_saturation_is_length() -> None:
    """White in the middle, and along any way from there only more colour."""
    paleness = flows.colours(radial(65, 65)).min(axis=2).astype(int)
    assert paleness[32, 32] == 255
    for way in (paleness[32, 32:], paleness[32:, 32], np.diagonal(paleness)[32:]):
        assert (np.diff(way) <= 0).all()


@pytest.mark.parametrize(("width", "height"), [(320, 240), (240, 320), (97, 501), (256, 256)])
def test_a_field_comes_back_from_a_branch_s_square(width: int, height: int) -> None:
    """Squeezed into 256x256, in that square's pixels, and scaled back per axis: the same motion in source pixels."""
    known = turning(width, height) * np.float32(0.07)
    square = np.stack([cv2.resize(plane, (256, 256)) for plane in known])
    square *= np.array([256 / width, 256 / height], np.float32)[:, None, None]
    back = resize_map(flows.scale_to(square, width, height), width, height, "linear")
    inside = (slice(None), slice(4, -4), slice(4, -4))  # at the borders a resize repeats the last pixel
    np.testing.assert_allclose(back[inside], known[inside], atol=0.05)
    assert flows.statistics(back)["magnitude_max"] == pytest.approx(
        0.07 * np.hypot((width - 1) / 2, (height - 1) / 2), rel=0.02
    )


def test_scaling_takes_each_axis_by_its_own() -> None:
    """One pixel of a square of 100 is 4 pixels of a width of 400 and half a pixel of a height of 50."""
    scaled = flows.scale_to(np.ones((2, 100, 100), np.float32), 400, 50)
    assert (scaled[0] == 4).all()
    assert (scaled[1] == 0.5).all()


def test_statistics_are_of_the_displacements() -> None:
    """A known even motion of 3 to the right and 4 up is 5 pixels long everywhere."""
    found = flows.statistics(np.broadcast_to(np.float32([3, -4])[:, None, None], (2, 6, 7)))
    assert found == pytest.approx(
        {
            "dx_mean": 3.0,
            "dy_mean": -4.0,
            "magnitude_mean": 5.0,
            "magnitude_std": 0.0,
            "magnitude_p95": 5.0,
            "magnitude_max": 5.0,
        }
    )
