"""YOLO11 to ONNX without PyTorch and without Ultralytics: FP32, one fixed size a graph, checked against NumPy."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from export.errors import ExportError
from export.exporters import EXPORTERS
from export.graphs import check_contract
from export.weights import SEED, Weights
from export.yolo11 import architecture, checkpoint
from export.yolo11.graph import build
from export.yolo11.network import Network
from export.yolo11.numpy_ops import Numpy
from export.yolo11.pictures import scene
from export.yolo11.records import Array, Record
from routing.catalogue import Branch, ModelSpec, TensorSpec

OPSET = EXPORTERS["detect"].opset
# The size at which the graph is compared with NumPy: a small one, because NumPy takes minutes for the served ones.
CHECK_SIDE = 64
MOST_CLASSES = 100_000
# ONNX Runtime in single precision against NumPy in double precision. Measured: at most 0.0006 px and 2e-6 over all
# variants; the room above it is for other processors, and a graph that computes something else is off by far more.
BOX_TOLERANCE_PX = 0.1
SCORE_TOLERANCE = 1e-3
# The least by which two different pictures must differ in their boxes, lest the comparison be one of constants.
ALIVE_PX = 1.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network that was compared with NumPy, and the names of its classes (none when it is random)."""

    model: Record
    labels: tuple[str, ...]


def export(branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]:
    """The ONNX graph of one branch, and the class names of its weights.

    The graph is shown to have the catalogue's contract and to answer its input.

    Raises:
        ExportError: it hasn't, or it doesn't; or the weights aren't those of the branch.
    """
    loaded = load(str(branch.variant), weights, own=branch.own)
    (spec,) = branch.models
    content = build(loaded.model, spec, OPSET)
    check_contract(onnx.load_from_string(content), spec, OPSET)
    side = spec.inputs[0].shape[-1]
    check_alive(spec.name, run(content, spec, [scene(seed, side) for seed in (1, 2)]))
    return content, loaded.labels


@functools.lru_cache(maxsize=1)  # the sizes of a variant come one after the other
def load(variant: str, weights: Weights, *, own: bool = False) -> Loaded:
    """The network of a variant, compared with NumPy at a small size.

    Args:
        variant: n, s, m, l or x; or the name of a user's own network.
        weights: a checkpoint, or random ones.
        own: the network has any size and any number of classes.

    Raises:
        ExportError: the file holds no YOLO11 detector of this variant with 80 classes, or the graph is off.
    """
    name = variant if own else f"yolo11{variant}"
    path = weights.path
    loaded = _of_file(variant, path, own=own) if path else Loaded(architecture.random(variant, SEED), ())
    try:
        check_parity(name, loaded.model, len(loaded.labels) or architecture.CLASSES)
    except ExportError as error:
        raise ExportError(f"{path or name} can't be exported: {error}") from error
    return loaded


def _of_file(variant: str, path: Path, *, own: bool) -> Loaded:
    model = checkpoint.read(path)
    head = model.child("model").children()[-1] if model.child("model").children() else model
    if head.kind != "Detect" or head.find("one2one_cv2") is not None or head.find("dfl") is None:
        needs = "a detector" if own else f"yolo11{variant}"
        raise ExportError(f"{path} ends in a {head.kind} head; {needs} needs a plain Detect")
    classes = head.state.get("nc")
    if own:
        if type(classes) is not int or not 1 <= classes <= MOST_CLASSES:
            raise ExportError(f"{path} doesn't say how many classes it knows")
        return Loaded(model, _labels(path, model.state.get("names"), classes))
    if classes != architecture.CLASSES:
        said = classes if isinstance(classes, int) else "an unknown number of"
        raise ExportError(f"{path} knows {said} classes; the contract [1, 84, anchors] needs 80")
    described = model.state.get("yaml")
    scale = described.get("scale") if isinstance(described, dict) else None
    if isinstance(scale, str) and scale in architecture.SCALES and scale != variant:
        raise ExportError(f"{path} holds another network than yolo11{variant}: yolo11{scale}")
    return Loaded(model, _labels(path, model.state.get("names"), architecture.CLASSES))


def _labels(path: Path, names: Any, classes: int) -> tuple[str, ...]:
    """The names of the classes: of a dict by number, or of a list.

    Raises:
        ExportError: they aren't texts of one line, one for each class.
    """
    by_number = dict(enumerate(names)) if isinstance(names, list | tuple) else names
    if not isinstance(by_number, Mapping):
        raise ExportError(f"{path} has no names of classes")
    labels = tuple(by_number.get(i) for i in range(classes))
    if not all(isinstance(label, str) and label and label.isprintable() for label in labels):
        raise ExportError(f"{path} hasn't a printable name for each of its {classes} classes")
    return labels  # type: ignore[return-value]  # just looked at


def check_parity(name: str, model: Record, classes: int = architecture.CLASSES) -> None:
    """The folded graph in ONNX Runtime answers a picture as the network itself does, computed by NumPy.

    Raises:
        ExportError: it doesn't.
    """
    spec, picture = specification(name, CHECK_SIDE, classes), scene(1, CHECK_SIDE)
    (answer,) = run(build(model, spec, OPSET), spec, [picture])
    compare(name, Network(Numpy()).run(model, picture.astype(np.float64)), answer)


def specification(name: str, side: int, classes: int = architecture.CLASSES) -> ModelSpec:
    """The contract at a size, as the catalogue has it for those that are served."""
    anchors = sum((side // stride) ** 2 for stride in (8, 16, 32))
    return ModelSpec(
        name=f"{name}_{side}",
        kind="onnx",
        inputs=(TensorSpec("images", "FP32", (1, 3, side, side)),),
        outputs=(TensorSpec("output0", "FP32", (1, 4 + classes, anchors)),),
    )


def compare(name: str, expected: Array, answer: Array) -> None:
    """Two answers `[1, 84, anchors]` are the same but for rounding.

    Raises:
        ExportError: they aren't.
    """
    difference = np.abs(answer - expected)
    boxes, scores = float(difference[:, :4].max()), float(difference[:, 4:].max())
    if not (boxes <= BOX_TOLERANCE_PX and scores <= SCORE_TOLERANCE):  # a NaN is refused as well
        raise ExportError(f"{name}: ONNX Runtime and NumPy differ by {boxes:.3g} px, scores by {scores:.3g}")


def check_alive(name: str, answers: list[Array]) -> None:
    """Two answers are finite, and aren't the same.

    Raises:
        ExportError: they are, or aren't.
    """
    first, second = answers
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ExportError(f"{name}: the answer isn't finite; these weights are damaged")
    if not np.abs(first[:, :4] - second[:, :4]).max() >= ALIVE_PX:
        raise ExportError(f"{name}: two pictures get the same boxes; these weights ignore their input")


def run(content: bytes, spec: ModelSpec, inputs: list[Array]) -> list[Array]:
    """ONNX Runtime's answers to each input.

    Raises:
        ExportError: it can't run the graph.
    """
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return [session.run([spec.outputs[0].name], {spec.inputs[0].name: array})[0] for array in inputs]
    except Exception as error:  # ONNX Runtime's errors have no class of their own
        raise ExportError(f"{spec.name}: ONNX Runtime can't run the graph") from error
