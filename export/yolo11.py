"""YOLO11 to ONNX: fused, FP32, one fixed size a graph, checked against torch on real pictures."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from export.errors import ExportError
from export.exporters import EXPORTERS
from export.graphs import check_contract
from export.weights import Weights
from export.yolo11_networks import load, ultralytics
from routing.catalogue import Branch, ModelSpec

OPSET = EXPORTERS["detect"].opset
PICTURES = ("bus.jpg", "zidane.jpg")
# Torch against ONNX Runtime. Measured: at most 0.005 px and 2e-5 over all variants and sizes; the room above it is
# for the rounding of other processors, and a graph that computes something else is off by far more.
BOX_TOLERANCE_PX = 0.1
SCORE_TOLERANCE = 1e-3
# The least by which two different pictures must differ in their boxes, lest the comparison be one of constants.
ALIVE_PX = 1.0

Array = npt.NDArray[Any]


def export(branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]:
    """The ONNX graph of one branch, and the class names of its weights.

    The graph is shown to have the catalogue's contract and to compute what torch computes.

    Raises:
        ExportError: it hasn't, or it doesn't; or the weights aren't those of the branch.
    """
    network = load(str(branch.variant), weights)
    (spec,) = branch.models
    side = spec.inputs[0].shape[-1]
    inputs = [picture(ultralytics().ASSETS / name, side) for name in PICTURES]
    with torch.no_grad():
        expected = [
            network.module(torch.from_numpy(array)).numpy() for array in inputs
        ]  # lays the anchors, too
    content = trace(network.module, inputs[0], spec)
    check_contract(onnx.load_from_string(content), spec, OPSET)
    check_parity(spec.name, expected, run(content, spec, inputs))
    return content, network.labels


def trace(module: Any, example: Array, spec: ModelSpec) -> bytes:
    """The graph, by the classic exporter: fixed shapes, no time stamp, the same bytes every time."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the classic exporter, chosen on purpose
        warnings.simplefilter(
            "ignore", torch.jit.TracerWarning
        )  # the head's tests of shapes are constants here
        torch.onnx.export(
            module,
            (torch.from_numpy(example),),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
        )
    return file.getvalue()


def run(content: bytes, spec: ModelSpec, inputs: list[Array]) -> list[Array]:
    """What ONNX Runtime answers to each input."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [session.run([spec.outputs[0].name], {spec.inputs[0].name: array})[0] for array in inputs]


def check_parity(name: str, expected: list[Array], answers: list[Array]) -> None:
    """Answers `[1, 84, anchors]` to two different pictures equal the expected ones, and aren't constants.

    Raises:
        ExportError: they don't, or they are.
    """
    for reference, answer in zip(expected, answers, strict=True):
        difference = np.abs(answer - reference)
        boxes, scores = float(difference[:, :4].max()), float(difference[:, 4:].max())
        if not (boxes <= BOX_TOLERANCE_PX and scores <= SCORE_TOLERANCE):  # a NaN is refused as well
            raise ExportError(
                f"{name}: ONNX Runtime and torch differ by {boxes:.3g} px, scores by {scores:.3g}"
            )
    if not np.abs(answers[0][:, :4] - answers[1][:, :4]).max() >= ALIVE_PX:
        raise ExportError(f"{name}: two pictures get the same boxes; these weights ignore their input")


def picture(path: Path, side: int) -> Array:
    """A picture as the network meets it: letterboxed without upscaling, RGB, FP32 `[1, 3, side, side]` in 0…1."""
    image = cv2.imread(str(path))
    if image is None:
        raise ExportError(f"{path} can't be read; is the ultralytics package whole?")
    square = ultralytics().LetterBox((side, side), auto=False, scaleup=False)(image=image)
    planes = np.ascontiguousarray(square[:, :, ::-1].transpose(2, 0, 1)[None], dtype=np.float32)
    return planes / np.float32(255)
