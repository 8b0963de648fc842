"""The resizer of frames stands in the answer's provenance, and scaled JPEG decoding changes nothing but pixels."""

from __future__ import annotations

import io
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from support.models.repository import CATALOGUE

from app.deadline import Deadline
from app.engine.fake import FakeEngine
from app.media.image import ImageLimits
from app.media.pictures.jpeg import SCALED_DECODE
from app.media.resizers.choice import resizer_named
from app.media.resizers.pillow import PillowResizer
from app.media.video.slots import VideoFrame
from app.metrics import Metrics
from app.pipelines.base import Framed, Router, Served, Timings
from app.pipelines.depth import DepthPipeline
from app.pipelines.flow import FlowPipeline
from app.pipelines.pipeline_set import LETTERBOX, Resizing
from routing.policy import FrameFacts, Wishes
from routing.provenance import ResizedBy

Arrays = Mapping[str, Any]
WIDTH, HEIGHT = 1200, 900
RGB = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8),
    (WIDTH, HEIGHT),
    interpolation=cv2.INTER_CUBIC,
)
BY_PILLOW = ResizedBy("pillow", PillowResizer.version, "bicubic, antialiased")


def grey(inputs: Arrays, outputs: Arrays) -> None:
    """The depth of a pixel is its brightness."""
    outputs["OUTPUT__0"][:] = inputs["INPUT__0"].mean(axis=3)


def pipeline(resizing: Resizing) -> DepthPipeline:
    engine = FakeEngine(CATALOGUE, {"midas_256": grey})
    return DepthPipeline(Router(CATALOGUE, engine), Metrics(), ImageLimits(), resizing)


def picture(kind: str, orientation: int = 1) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(buffer, kind, quality=95, exif=exif)
    return buffer.getvalue()


def resized(served: Served) -> ResizedBy | None:
    assert served.resized == served.used.prepare
    (entry,) = served.described()["models_used"]
    assert entry["prepare"] == (served.resized.to_dict() if served.resized else None)
    return served.resized


SMALL = Wishes(branch="midas_256")


@pytest.mark.parametrize(("kind", "by"), [("JPEG", {"scaled_decode": SCALED_DECODE}), ("PNG", {})])
def test_scaled_decoding_is_said_and_keeps_the_answer_s_size(kind: str, by: dict[str, str]) -> None:
    """Maps come at the source's size, within 2 levels on average; only JPEGs are decoded so, and only they say it."""
    exact = pipeline(Resizing(PillowResizer()))(picture(kind), SMALL, Deadline.after(60))
    other = pipeline(Resizing(PillowResizer(), scaled_jpeg=True))(picture(kind), SMALL, Deadline.after(60))
    assert resized(exact.served) == BY_PILLOW
    assert resized(other.served) == ResizedBy(BY_PILLOW.library, BY_PILLOW.version, BY_PILLOW.filter, **by)
    assert exact.values.shape == other.values.shape == (HEIGHT, WIDTH)
    assert np.abs(exact.values - other.values).mean() < 2
    assert (exact.served.described()["model_signature"] == other.served.described()["model_signature"]) == (
        not by
    )


def test_a_turned_picture_is_routed_and_answered_as_it_is_shown() -> None:
    """EXIF orientation 6: the columns of the file are rows."""
    found = pipeline(Resizing(PillowResizer(), scaled_jpeg=True))(
        picture("JPEG", 6), SMALL, Deadline.after(60)
    )
    assert found.values.shape == (WIDTH, HEIGHT)


def test_a_frame_that_something_else_resized_says_so() -> None:
    """A decoder that scales while it converts is named in the resizer's place."""
    frame = np.ascontiguousarray(RGB[:256, :256])
    by = ResizedBy("swscale", "9.1", "bicubic")
    framed = Framed(FrameFacts(WIDTH, HEIGHT), SMALL, Deadline.after(60), Timings(), resized=by)
    found = pipeline(Resizing(PillowResizer())).on_frame(frame, framed, "branch")
    assert resized(found.served) == by
    np.testing.assert_allclose(found.values, frame.mean(axis=2), atol=1e-3)


@pytest.mark.parametrize("family", CATALOGUE.families)
def test_every_branch_says_what_resizes_its_frames(family: str) -> None:
    """Detection's letterbox is OpenCV's with every setting; text has nothing to resize."""
    resizing = Resizing(PillowResizer(), scaled_jpeg=True)
    for branch in CATALOGUE[family].branches:
        by = resizing.of(branch)
        if family in ("detect", "clip_text"):
            assert by == (LETTERBOX if family == "detect" else None)
        else:
            assert by is not None
            assert by.filter == f"{branch.prepare.interpolation if branch.prepare else ''}, antialiased"
            assert by.scaled_decode is None  # the frame of a video was no JPEG


def test_a_resizer_that_is_missing_is_an_error_only_where_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`auto` is Pillow where there is no wheel."""
    monkeypatch.setitem(__import__("sys").modules, "app.media.resizers.fast", None)
    assert resizer_named("auto").library == "pillow"
    with pytest.raises(ImportError):
        resizer_named("fast")


class Counting(PillowResizer):
    """Pillow's resizer, with the number of its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def resize_into(self, *arguments: Any) -> None:
        self.calls += 1
        super().resize_into(*arguments)


def difference(inputs: Arrays, outputs: Arrays) -> None:
    """The motion of a pixel is how much brighter and how much redder it has become."""
    first, second = (inputs[name][0].astype(np.float32) for name in ("INPUT0__0", "INPUT1__0"))
    outputs["OUTPUT__0"][0] = (second - first).mean(2), (second - first)[..., 0]


def test_a_frame_of_a_video_is_resized_once_for_flow() -> None:
    """As the second of a pair, not again as the first of the next; the field is the same to the bit."""
    frames = [np.ascontiguousarray(np.roll(RGB, shift, 1)) for shift in (0, 7, 30)]
    fields, calls = {}, {}
    for kept in (False, True):
        resizer, squares = (
            Counting(),
            [VideoFrame(n, n / 2, rgb, lambda: None) for n, rgb in enumerate(frames)],
        )
        engine = FakeEngine(CATALOGUE, {"raft_256": difference})
        flow = FlowPipeline(Router(CATALOGUE, engine), Metrics(), ImageLimits(), Resizing(resizer))
        fields[kept] = [
            flow.on_frames(
                first.rgb,
                second.rgb,
                Framed(FrameFacts(WIDTH, HEIGHT), Wishes(branch="raft_256"), Deadline.after(60), Timings()),
                "branch",
                (first.squares, second.squares) if kept else None,
            ).values
            for first, second in pairwise(squares)
        ]
        calls[kept] = resizer.calls
    assert calls == {False: 4, True: 3}
    assert np.array_equal(fields[False], fields[True])
    assert np.any(fields[True][0] != fields[True][1])
