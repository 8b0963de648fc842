"""The peers do the gateway's work: the same boxes and maps from the same pictures, asked for in whole requests."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.vision.letterbox import Letterbox
from app.vision.yolo import detect
from benchmarks.common import null_models
from benchmarks.common.cases import CASES, MAIN
from benchmarks.common.squares import Squares
from benchmarks.peers import steps
from benchmarks.speed.peers import (
    FOLDER,
    PEERS,
    form_request,
    install,
    v1_answer,
    v1_request,
)
from benchmarks.speed.regression import _of_ours
from benchmarks.speed.targets import Unavailable
from routing import catalogue

CATALOGUE = catalogue.load()


@pytest.mark.parametrize("size", [(640, 480), (1920, 1080), (333, 777)])
def test_a_peers_boxes_are_the_gateways(size: tuple[int, int]) -> None:
    """Within a pixel, for the peers round the letterbox in their own way."""
    output0 = null_models.anchors((1, 84, 8400), 10)
    _, placement = steps.letterbox(Image.new("RGB", size))
    theirs = steps.boxes(output0, placement)
    found = detect(output0, steps.CONF, steps.IOU, steps.MAX_DET)
    ours = Letterbox.fit(*size, 640).undo(found.boxes)
    assert len(theirs) == len(ours) == 10
    clipped = np.clip(theirs[:, :4], 0, [*size, *size])
    np.testing.assert_allclose(clipped[np.argsort(theirs[:, 5])], ours[np.argsort(found.class_ids)], atol=2)


def test_a_peers_letterbox_is_padded_and_scaled() -> None:
    """Planar float32 in `[0, 1]` with grey around the picture."""
    tensor, placement = steps.letterbox(Image.new("RGB", (1280, 640), (255, 0, 0)))
    assert tensor.shape == (1, 3, 640, 640)
    assert tensor.dtype == np.float32
    assert placement == (0.5, 0, 160)
    np.testing.assert_allclose(tensor[0, :, 0, 0], 114 / 255)
    np.testing.assert_allclose(tensor[0, :, 320, 320], [1, 0, 0])


def test_a_peers_map_is_an_npy_file() -> None:
    """A peer's map has the form of the gateway's `application/x-npy`."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(np.load(io.BytesIO(steps.npy(values))), values)
    assert steps.square(Image.new("RGB", (640, 480))).shape == (1, 512, 512, 3)


@pytest.mark.parametrize(("size", "family"), [((640, 480), "clip_image"), ((1080, 1350), "places")])
def test_a_peer_crops_as_the_gateway_does(size: tuple[int, int], family: str) -> None:
    """The same filter and the same middle, pixel by pixel."""
    described = CATALOGUE[family]
    prepare = described.prepare
    assert prepare is not None
    rgb = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    short, resample = (224, "BICUBIC") if family == "clip_image" else (256, "BILINEAR")
    theirs = steps.middle(Image.fromarray(rgb), short, Image.Resampling[resample])[0]
    ours = np.empty_like(theirs)
    Squares(224, described).fill(rgb, ours)
    assert np.abs(theirs.astype(int) - ours).mean() < 1


@pytest.mark.parametrize("name", [name for name in MAIN if PEERS["litserve"].answers(CASES[name])])
def test_requests_carry_the_picture(name: str) -> None:
    """A form for those that take files, base64 for KServe; the length is the body's."""
    case = CASES[name]
    frames = case.frames()[0]
    form, v1 = form_request(case, frames), v1_request(case, frames)
    assert form.startswith(f"POST /{case.family} HTTP/1.1".encode())
    assert b'name="file"' in form
    assert frames[0] in form
    head, _, content = v1.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(content)}".encode() in head
    assert base64.b64decode(json.loads(content)["instances"][0]["image"]["b64"]) == frames[0]


def test_predictions_are_unpacked_before_they_are_checked() -> None:
    """KServe wraps its answers."""
    case = CASES["depth_1080p"]
    whole = base64.b64encode(steps.npy(np.zeros((512, 512), np.float32))).decode()
    small = base64.b64encode(steps.npy(np.zeros((2, 2), np.float32))).decode()
    check = v1_answer(case)
    assert check(json.dumps({"predictions": [{"b64": whole}]}).encode()) is None
    assert "not float32" in str(check(json.dumps({"predictions": [{"b64": small}]}).encode()))


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_every_peer_has_its_script(peer: object) -> None:
    """Commands name files or modules that are there."""
    command = " ".join(PEERS[peer.name].command)  # type: ignore[attr-defined]  # a Peer
    stems = [path.stem for path in FOLDER.glob("*.py") if path.stem not in ("steps", "__init__")]
    assert sum(f"{stem}.py" in command or f"{stem}:" in command for stem in stems) == 1


def test_a_peer_that_cannot_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a peer becomes a row of the table, not the end of the run."""
    monkeypatch.setattr("benchmarks.speed.peers.VENVS", tmp_path)
    broken = type(PEERS["plain"])("x", "x", "x", ("./no-such-folder",), (), ())
    with pytest.raises(Unavailable, match="pip"):
        install(broken)


def test_the_guard_judges_the_gateways_ratios_alone() -> None:
    """A slower bare app is no fault of the gateway."""
    found = {"ratios": {"ours / limit": 1, "bare / limit": 2, "ours / plain": 3}}
    assert _of_ours(found) == {"ours / limit": 1, "ours / plain": 3}
