"""Detectors that somebody has exported to ONNX: what they are is looked at, what is dynamic is made fixed.

A graph is taken that answers a frame `[1, 3, S, S]` with `[1, 4 + classes, anchors]`, as Ultralytics' YOLOv8 and YOLO11
do. Everything else is refused with a sentence that says what to export instead.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from export.errors import ExportError
from export.graphs import check_contract, value_info
from export.yolo11.pictures import scene
from export.yolo11.records import Array
from routing.catalogue import ModelSpec

# What the ONNX Runtime of the oldest Triton in use (24.08) reads.
NEWEST_OPSET, OLDEST_OPSET, NEWEST_IR = 21, 7, 10
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_SUPPRESSION = frozenset({"NonMaxSuppression", "EfficientNMS_TRT", "BatchedNMS_TRT", "TRT_NonMaxSuppression"})
_AGAIN = "yolo export model=best.pt format=onnx"
_INSIDE = "suppression is inside it, which the gateway does itself, with each request's own conf and iou"
_NMS = f"{_INSIDE}: {_AGAIN} nms=False"
_TASKS = {
    "segment": "it is a segmentation model: its masks have no place here",
    "pose": "it is a pose model: its keypoints have no place here",
    "obb": "it answers oriented boxes",
    "classify": "it classifies whole pictures",
}
_DETECT = "the family detect takes models that were trained for the task detect"
# ONNX Runtime against itself, the fixed graph against the file: other kernels may round otherwise.
BOX_TOLERANCE_PX, SCORE_TOLERANCE = 0.1, 1e-3


@dataclass(frozen=True)
class Detector:
    """One file: its graph, the names of its tensors, the side it is fixed to (None: any), the class names in it."""

    path: Path
    model: onnx.ModelProto
    input: str
    output: str
    side: int | None
    labels: tuple[str, ...]


def read(path: Path) -> Detector:
    """Look at a file.

    Raises:
        ExportError: it is no detector that can be served; the message says what to export instead.
    """
    try:
        return _read(path)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error


def _read(path: Path) -> Detector:
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's, ONNX's and the file system's are told the same way
        raise ExportError(f"it is no ONNX model that can be read ({_first_line(error)})") from error
    notes = {entry.key: entry.value for entry in model.metadata_props}
    _check_task(notes)
    _check_versions(model)
    if _SUPPRESSION & {node.op_type for node in model.graph.node} or notes.get("end2end") == "True":
        raise ExportError(_NMS)
    names = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in names]
    if len(inputs) != 1:
        raise ExportError(f"it has {len(inputs)} inputs; a detector has one, the frame")
    if len(model.graph.output) != 1:
        raise ExportError(
            f"it has {len(model.graph.output)} outputs, as models with masks or prototypes have; {_DETECT}"
        )
    _check_output(_sides(model.graph.output[0]))
    side = _side(inputs[0])
    return Detector(path, model, inputs[0].name, model.graph.output[0].name, side, _labels(notes))


def _check_task(notes: Mapping[str, str]) -> None:
    task = notes.get("task", "detect")
    if task != "detect":
        raise ExportError(f"{_TASKS.get(task, f'it was made for the task {task[:40]!r}')}; {_DETECT}")


def _check_versions(model: onnx.ModelProto) -> None:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    foreign = sorted(set(versions) - _DOMAINS)
    used = sorted({node.domain for node in model.graph.node} & set(foreign))
    if used:
        raise ExportError(f"it uses operators of {', '.join(used)}, which ONNX Runtime alone doesn't know")
    opset = max((version for domain, version in versions.items() if domain in ("", "ai.onnx")), default=0)
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise ExportError(
            f"it has opset {opset}; {OLDEST_OPSET} to {NEWEST_OPSET} are read: {_AGAIN} opset=17"
        )
    if model.ir_version > NEWEST_IR:
        raise ExportError(
            f"it has IR version {model.ir_version}; up to {NEWEST_IR} is read: {_AGAIN} opset=17"
        )


def _check_output(sides: Sequence[int | None]) -> None:
    if len(sides) == 2:
        raise ExportError(f"it answers {_said(sides)}, as classifiers do; {_DETECT}")
    if len(sides) != 3:
        raise ExportError(f"it answers {_said(sides)}; a detector answers [1, 4 + classes, anchors]")
    if sides[2] in (6, 7):
        raise ExportError(f"it answers {_said(sides)}: {_NMS}")
    rows, anchors = sides[1:]
    if rows is not None and anchors is not None and rows > anchors:
        raise ExportError(
            f"it answers {_said(sides)}, anchors before classes, as YOLOv5 does; export a YOLOv8 or YOLO11, which "
            "answer [1, 4 + classes, anchors]"
        )


def _side(value: Any) -> int | None:
    """The side that the input is fixed to."""
    kind = value.type.tensor_type.elem_type
    if kind == onnx.TensorProto.FLOAT16:
        raise ExportError(f"it takes half precision; frames are FP32: {_AGAIN} half=False")
    if kind != onnx.TensorProto.FLOAT:
        raise ExportError(f"it takes {onnx.TensorProto.DataType.Name(kind)}; frames are FP32, 0 to 1")
    sides = _sides(value)
    if len(sides) != 4 or sides[1] not in (3, None):
        raise ExportError(f"it takes {_said(sides)}; a frame is [1, 3, height, width]")
    if sides[0] not in (1, None):
        raise ExportError(f"it takes {sides[0]} frames at once; here it is one: {_AGAIN} batch=1")
    if sides[2] != sides[3]:
        raise ExportError(f"it takes {_said(sides)}; frames are square here: {_AGAIN} imgsz=640")
    return sides[2]


def _sides(value: Any) -> list[int | None]:
    return [side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else None
            for side in value.type.tensor_type.shape.dim]  # fmt: skip


def _said(sides: Sequence[int | None]) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in sides)}]"


def _labels(notes: Mapping[str, str]) -> tuple[str, ...]:
    """The class names that Ultralytics writes into the file; none where they aren't there or make no sense."""
    try:
        names = ast.literal_eval(notes.get("names", ""))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ()
    by_number = dict(enumerate(names)) if isinstance(names, list | tuple) else names
    if not isinstance(by_number, dict) or set(by_number) != set(range(len(by_number))):
        return ()
    return tuple(str(by_number[number]) for number in range(len(by_number)))


def classes(detector: Detector, side: int) -> int:
    """Return the number of classes, found by running the graph.

    Raises:
        ExportError: it can't be run, or answers something else than boxes.
    """
    shape = run(detector.model.SerializeToString(), detector.input, scene(1, side)).shape
    _check_output(shape)
    anchors = 21 * (side // 32) ** 2
    if shape[0] != 1 or shape[1] < 5 or shape[2] != anchors:
        raise ExportError(
            f"{detector.path}: at {side} it answers {list(shape)}; a detector answers [1, 4 + classes, {anchors}], one "
            "box per cell of the grids of 8, 16 and 32 pixels"
        )
    return int(shape[1]) - 4


def fixed(detector: Detector, spec: ModelSpec) -> bytes:
    """The graph with the tensors of `spec`, which answers a picture as the file does.

    Raises:
        ExportError: it doesn't.
    """
    side = spec.inputs[0].shape[-1]
    if detector.side not in (None, side):
        raise ExportError(
            f"{detector.path} is fixed to {detector.side} pixels, not {side}: --sizes {detector.side}, or {_AGAIN} "
            f"dynamic=True"
        )
    model = onnx.ModelProto()
    model.CopyFrom(detector.model)
    _rename(model.graph, {detector.input: spec.inputs[0].name, detector.output: spec.outputs[0].name})
    position = next(i for i, value in enumerate(model.graph.input) if value.name == spec.inputs[0].name)
    model.graph.input[position].CopyFrom(value_info(spec.inputs[0]))
    model.graph.output[0].CopyFrom(value_info(spec.outputs[0]))
    del model.graph.value_info[:]
    content = bytes(model.SerializeToString(deterministic=True))
    check_contract(model, spec, None)
    pictures = [scene(seed, side) for seed in (1, 2)]
    found = [run(content, spec.inputs[0].name, picture) for picture in pictures]
    expected = run(detector.model.SerializeToString(), detector.input, pictures[0])
    _compare(spec, expected, found)
    return content


def _compare(spec: ModelSpec, expected: Array, found: Sequence[Array]) -> None:
    answer = found[0]
    if answer.shape != spec.outputs[0].shape:
        raise ExportError(f"{spec.name}: it answers {list(answer.shape)}, not {list(spec.outputs[0].shape)}")
    if not all(np.isfinite(one).all() for one in found):
        raise ExportError(f"{spec.name}: it answers numbers that aren't finite")
    difference = np.abs(answer - expected)
    if difference[:, :4].max() > BOX_TOLERANCE_PX or difference[:, 4:].max() > SCORE_TOLERANCE:
        raise ExportError(f"{spec.name}: with fixed axes, it answers differently from the original file")
    scores = np.concatenate([one[:, 4:] for one in found])
    if scores.min() < 0 or scores.max() > 1:
        raise ExportError(
            f"{spec.name}: its scores go from {scores.min():.3g} to {scores.max():.3g}, not 0 to 1"
        )
    if answer[:, :4].max() <= 2:
        raise ExportError(f"{spec.name}: its boxes are parts of the frame, not pixels")
    if not np.abs(found[0] - found[1]).max() > 0:
        raise ExportError(f"{spec.name}: two pictures get the same answer; it ignores its input")


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Give tensors other names, inside of loops and branches too."""
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for side in (node.input, node.output):
            for position, name in enumerate(side):
                side[position] = names.get(name, name)
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _rename(inner, names)


def run(content: bytes, name: str, picture: Array) -> Array:
    """ONNX Runtime's answer to a picture `[1, 3, S, S]`.

    Raises:
        ExportError: it can't run the graph.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        answer: Array = session.run(None, {name: picture})[0]
    except Exception as error:  # ONNX Runtime's errors have no class of their own
        raise ExportError(f"ONNX Runtime can't run it: {_first_line(error)}") from error
    return answer


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
