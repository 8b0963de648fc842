"""The letterbox: pixels equal to Ultralytics', geometry right for every frame."""

from __future__ import annotations

import dataclasses
from itertools import groupby

import cv2
import numpy as np
import pytest
from golden.detect_cases import Case, cases, facts
from golden.pictures import BY_NAME, Pixels, default_folders, digest
from hypothesis import given
from hypothesis import strategies as st
from support.letterboxed import letterboxed

from app.vision.letterbox import Letterbox

SIDES = st.integers(1, 4320)
SIZES = st.sampled_from([320, 640, 960])
BY_PICTURE = {name: tuple(group) for name, group in groupby(cases(), key=lambda case: case.picture)}


@pytest.fixture(scope="module", params=BY_PICTURE, ids=str)
def picture(request: pytest.FixtureRequest) -> tuple[Pixels, tuple[Case, ...]]:
    """The pixels of one picture and its golden cases."""
    try:
        pixels = BY_NAME[request.param].pixels(default_folders())
    except FileNotFoundError as missing:
        pytest.skip(f"needs {missing}")
    return pixels, BY_PICTURE[request.param]


def test_sources_are_the_goldens(picture: tuple[Pixels, tuple[Case, ...]]) -> None:
    """The picture decodes to the very pixels that the golden data were made from."""
    pixels, golden = picture
    assert pixels.shape == (golden[0].height, golden[0].width, 3)
    assert digest(pixels) == golden[0].source_sha256, "another decoder or another picture, not the letterbox"


def test_pixels_equal_the_reference(picture: tuple[Pixels, tuple[Case, ...]]) -> None:
    """At every size the square is bit-identical to the one that Ultralytics' LetterBox makes."""
    pixels, golden = picture
    for case in golden:
        square = letterboxed(pixels, Letterbox.fit(case.width, case.height, case.size))
        assert square.shape == (case.size, case.size, 3)
        made_with = facts()["versions"]["opencv"]
        assert digest(square) == case.letterbox_sha256, (
            f"{case}: OpenCV {cv2.__version__}, golden {made_with}"
        )


def test_letterbox_leaves_its_input_alone() -> None:
    """The source's pixels are the same after the letterbox, whether it resizes or only pads."""
    rng = np.random.default_rng(0)
    for width, height in ((200, 100), (700, 500)):
        rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        before = rgb.copy()
        letterboxed(rgb, Letterbox.fit(width, height, 320))
        np.testing.assert_array_equal(rgb, before)


def test_small_frames_keep_their_pixels() -> None:
    """A 200x100 frame lies in the square as it is, with grey 114 around it."""
    rgb = np.random.default_rng(1).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    square = letterboxed(rgb, Letterbox.fit(200, 100, 320))
    np.testing.assert_array_equal(square[110:210, 60:260], rgb)
    square[110:210, 60:260] = 114
    assert (square == 114).all()


@given(SIDES, SIDES, SIZES)
def test_never_scales_up(width: int, height: int, size: int) -> None:
    """No frame grows, and one that fits in the square keeps its size."""
    box = Letterbox.fit(width, height, size)
    assert 0 < box.scale <= 1
    assert box.new_width <= width
    assert box.new_height <= height
    if max(width, height) <= size:
        assert (box.scale, box.new_width, box.new_height) == (1, width, height)
    else:
        assert max(box.new_width, box.new_height) == size


@given(SIDES, SIDES, SIZES)
def test_padding_is_even(width: int, height: int, size: int) -> None:
    """Left and top are Ultralytics' rounding: what is left over is on the right and below, one pixel at most."""
    box = Letterbox.fit(width, height, size)
    for before, new in ((box.left, box.new_width), (box.top, box.new_height)):
        half = (size - new) / 2
        after = size - new - before
        assert (before, after) == (round(half - 0.1), round(half + 0.1))
        assert 0 <= after - before <= 1


@given(st.integers(1, 12), st.integers(1000, 100_000), SIZES, st.booleans())
def test_extreme_aspects_keep_a_pixel(short: int, long: int, size: int, upright: bool) -> None:
    """However thin the frame, its shorter side keeps at least one pixel and the square stays whole."""
    width, height = (short, long) if upright else (long, short)
    box = Letterbox.fit(width, height, size)
    assert box.new_width >= 1
    assert box.new_height >= 1
    assert box.left + box.new_width <= size
    assert box.top + box.new_height <= size


@given(SIDES, SIDES, SIZES, st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=8))
def test_undo_reverses_the_resize(
    width: int, height: int, size: int, shares: list[tuple[float, float, float, float]]
) -> None:
    """Boxes that went the way of the pixels (each axis by its own rounded ratio) come back within 1e-3 px."""
    box = Letterbox.fit(width, height, size)
    source = np.array(shares, dtype=np.float64).reshape(-1, 4) * [width, height, width, height]
    ratio = np.array([box.new_width / width, box.new_height / height] * 2)
    squared = source * ratio + [box.left, box.top] * 2
    undone = box.undo(squared.astype(np.float32))
    assert undone.dtype == np.float32
    np.testing.assert_allclose(undone, source, rtol=0, atol=1e-3)


@given(SIDES, SIDES, SIZES)
def test_undo_maps_the_frames_edge_to_the_frames_edge(width: int, height: int, size: int) -> None:
    """The corners of the resized frame are the corners of the source, whatever the resize rounded."""
    box = Letterbox.fit(width, height, size)
    inner = (box.left, box.top, box.left + box.new_width, box.top + box.new_height)
    undone = box.undo(np.array([inner], dtype=np.float32))
    np.testing.assert_allclose(undone, [[0, 0, width, height]], rtol=0, atol=1e-3)


@given(SIDES, SIDES, SIZES, st.lists(st.tuples(*[st.floats(-2000, 3000, width=32)] * 4), max_size=8))
def test_undo_clips_to_the_source(
    width: int, height: int, size: int, rows: list[tuple[float, float, float, float]]
) -> None:
    """No corner leaves the source, wherever in the plane the box lay, and the input is not written to."""
    boxes = np.array(rows, dtype=np.float32).reshape(-1, 4)
    before = boxes.copy()
    undone = Letterbox.fit(width, height, size).undo(boxes)
    assert undone.shape == boxes.shape
    assert (undone >= 0).all()
    assert (undone <= np.array([width, height] * 2)).all()
    np.testing.assert_array_equal(boxes, before)


def test_geometry_is_frozen() -> None:
    """A geometry can't be changed, so it can be kept as a key."""
    box = Letterbox.fit(810, 1080, 640)
    with pytest.raises(dataclasses.FrozenInstanceError):
        box.left = 3  # type: ignore[misc]
    assert box == Letterbox.fit(810, 1080, 640)
    assert hash(box) == hash(Letterbox.fit(810, 1080, 640))
