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
from benchmarks.common.cases import CASES
from benchmarks.peers import steps
from benchmarks.speed.peers import (
    ENDPOINTS,
    FOLDER,
    PEERS,
    Unavailable,
    form_request,
    install,
    v1_answer,
    v1_request,
)
from benchmarks.speed.regression import _of_ours


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


@pytest.mark.parametrize("name", ENDPOINTS)
def test_requests_carry_the_picture(name: str) -> None:
    """A form for those that take files, base64 for KServe; the length is the body's."""
    case = CASES[name]
    frames = case.frames()[0]
    form, v1 = form_request(case, frames), v1_request(case, frames)
    assert form.startswith(f"POST /{ENDPOINTS[name]} HTTP/1.1".encode())
    assert b'name="file"' in form
    assert frames[0] in form
    head, _, content = v1.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(content)}".encode() in head
    assert base64.b64decode(json.loads(content)["instances"][0]["image"]["b64"]) == frames[0]


def test_predictions_are_unpacked_before_they_are_checked() -> None:
    """KServe wraps its answers."""
    case = CASES["depth_512"]
    whole = base64.b64encode(steps.npy(np.zeros((512, 512), np.float32))).decode()
    small = base64.b64encode(steps.npy(np.zeros((2, 2), np.float32))).decode()
    check = v1_answer(case.check, "b64")
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
