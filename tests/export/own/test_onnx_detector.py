"""ONNX files as people bring them: made fixed, or refused with a sentence that says what to export instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.models.own import answering, detector

from export.errors import ExportError
from export.own import onnx_detector
from routing.catalogue import ModelSpec, TensorSpec

SPEC = ModelSpec(
    "helmet_64", "onnx", (TensorSpec("images", "FP32", (1, 3, 64, 64)),), (TensorSpec("output0", "FP32", (1, 6, 84)),)
)  # fmt: skip


@pytest.mark.parametrize("batch", [1, "batch"])
def test_dynamic_axes_are_made_fixed(tmp_path: Path, batch: int | str) -> None:
    """The same answers, under the catalogue's names and shapes."""
    found = onnx_detector.read(detector(tmp_path / "any.onnx", batch=batch))
    assert (found.side, onnx_detector.classes(found, 64)) == (None, 2)
    content = onnx_detector.fixed(found, SPEC)
    graph = onnx.load_from_string(content).graph
    assert [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == [1, 3, 64, 64]
    assert [d.dim_value for d in graph.output[0].type.tensor_type.shape.dim] == [1, 6, 84]
    assert (graph.input[0].name, graph.output[0].name) == ("images", "output0")
    picture = np.random.default_rng(0).random((1, 3, 64, 64)).astype(np.float32)
    there = onnx_detector.run(found.model.SerializeToString(), "images", picture)
    assert np.array_equal(onnx_detector.run(content, "images", picture), there)


def test_names_are_read_from_the_file(tmp_path: Path) -> None:
    """As Ultralytics writes them; what makes no sense is no list of names."""
    notes = {"task": "detect", "names": "{0: 'helmet', 1: 'head'}"}
    assert onnx_detector.read(detector(tmp_path / "a.onnx", notes=notes)).labels == ("helmet", "head")
    assert onnx_detector.read(detector(tmp_path / "b.onnx", notes={"names": "{1: 'a'}"})).labels == ()
    assert onnx_detector.read(detector(tmp_path / "c.onnx", notes={"names": "open('x')"})).labels == ()


def _masks(path: Path) -> Path:
    node = helper.make_node("Identity", ["images"], ["protos"])
    value = helper.make_tensor_value_info("protos", TensorProto.FLOAT, [1, 3, 64, 64])
    return detector(path, 64, more=((node, value),))


def _suppressed(path: Path) -> Path:
    node = helper.make_node("NonMaxSuppression", ["out", "out"], ["chosen"])
    value = helper.make_tensor_value_info("chosen", TensorProto.INT64, ["n", 3])
    return detector(path, 64, more=((node, value),))


def _text(path: Path) -> Path:
    path.write_text("<html>")
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "NMS inside": (_suppressed, "suppression is inside it.*nms=False"),
    "NMS inside, by shape": (lambda p: answering(p, [1, 300, 6]), "suppression is inside it.*nms=False"),
    "end to end": (lambda p: detector(p, 64, notes={"end2end": "True"}), "suppression is inside"),
    "segmentation": (lambda p: detector(p, 64, notes={"task": "segment"}), "segmentation model: its masks"),
    "pose": (lambda p: detector(p, 64, notes={"task": "pose"}), "its keypoints"),
    "two outputs": (_masks, "2 outputs, as models with masks"),
    "classifier": (lambda p: answering(p, [1, 1000]), "as classifiers do"),
    "YOLOv5": (lambda p: answering(p, [1, 252, 85]), "anchors before classes"),
    "half": (lambda p: detector(p, 64, kind=TensorProto.FLOAT16), "half=False"),
    "pixels": (lambda p: detector(p, 64, kind=TensorProto.UINT8), "takes UINT8; frames are FP32"),
    "four at once": (lambda p: detector(p, 64, batch=4), "4 frames at once.*batch=1"),
    "newer opset": (lambda p: detector(p, 64, opset=22), "opset 22.*opset=17"),
    "no ONNX": (_text, "no ONNX model that can be read"),
    "absent": (lambda p: p, "no ONNX model that can be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused(tmp_path: Path, name: str) -> None:
    """With a sentence that helps, and the file's name."""
    make, words = REFUSED[name]
    with pytest.raises(ExportError, match=words) as caught:
        onnx_detector.read(make(tmp_path / "file.onnx"))
    assert str(tmp_path / "file.onnx") in str(caught.value)


def test_other_grids_are_refused(tmp_path: Path) -> None:
    """A transformer's 300 boxes are no grid; the message says what was expected."""
    found = onnx_detector.read(answering(tmp_path / "detr.onnx", [1, 84, 300]))
    with pytest.raises(ExportError, match=r"at 64 it answers \[1, 84, 300\].*classes, 84\]"):
        onnx_detector.classes(found, 64)


def test_another_size_than_the_fixed_one_is_refused(tmp_path: Path) -> None:
    """It says which size there is."""
    found = onnx_detector.read(detector(tmp_path / "a.onnx", 32))
    assert found.side == 32
    with pytest.raises(ExportError, match="fixed to 32 pixels, not 64: --sizes 32"):
        onnx_detector.fixed(found, SPEC)
