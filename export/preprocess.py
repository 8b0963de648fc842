"""The `preprocess_*` graphs: UINT8 NHWC to normalised FP32 NCHW, as small ONNX files.

ONNX, not Python: Triton's container needs no packages, the GPU can run them, and the embedded engine runs the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.graphs import check_contract, value_info
from export.manifest import Provenance, Source
from routing.catalogue import ModelSpec, Prepare, TensorSpec

OPSET = 17
OPSET_RESIZE = 18  # the first whose Resize filters what it shrinks (`antialias`)
IR_VERSION = 8  # read by every ONNX Runtime since 1.10, Triton 24.08's included
REVISION = 1
# The coefficient of Pillow's and torchvision's antialiased bicubic, with which the networks were trained.
_CUBIC_COEFFICIENT = -0.5
_MODES = {"bicubic": "cubic", "linear": "linear"}


def opset(spec: ModelSpec) -> int:
    return OPSET_RESIZE if _resizes(spec) else OPSET


def provenance(spec: ModelSpec) -> Provenance:
    """These graphs hold no trained weights; their source is the catalogue."""
    return Provenance("none", Source("routing/branches.toml"), {"opset": opset(spec), "revision": REVISION})


def build(spec: ModelSpec, prepare: Prepare) -> bytes:
    """`(resize(float(x)) / scale - mean) / std` for each input of `spec`; the same bytes every time.

    A mean of 0 and a std of 1 are left out: they change no bit, and cost a pass over the picture each.
    """
    nodes = [
        node
        for position, (source, target) in enumerate(zip(spec.inputs, spec.outputs, strict=True))
        for node in _chain(source, target, prepare, f"p{position}_")
    ]
    graph = helper.make_graph(
        nodes,
        spec.name,
        [value_info(t) for t in spec.inputs],
        [value_info(t) for t in spec.outputs],
        _constants(spec, prepare),
    )
    version = opset(spec)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", version)],
        ir_version=IR_VERSION,
        producer_name="triton-vision-gateway",
    )
    check_contract(onnx.shape_inference.infer_shapes(model, strict_mode=True), spec, version)
    return bytes(model.SerializeToString(deterministic=True))


def _chain(source: TensorSpec, target: TensorSpec, prepare: Prepare, prefix: str) -> Iterator[onnx.NodeProto]:
    """The nodes from one input to its output; each feeds the next."""
    steps: list[tuple[str, list[str], dict[str, object]]] = [
        ("Cast", [], {"to": onnx.TensorProto.FLOAT}),
        ("Transpose", [], {"perm": [0, 3, 1, 2]}),
    ]
    if source.shape[1] != target.shape[2]:
        steps.append(("Resize", ["", "", "sizes"], _resize(prepare)))
        steps.append(("Clip", ["zero", "white"], {}))  # a cubic overshoots at edges; Pillow's pixels can't
    steps.append(("Div", ["scale"], {}))
    steps += [(operator, [name], {}) for name, (operator, _) in _normalisation(prepare).items()]
    value = source.name
    for index, (operator, constants, attributes) in enumerate(steps):
        result = target.name if index == len(steps) - 1 else f"{prefix}{index}"
        name = f"{prefix}{index}_{operator}"
        yield helper.make_node(operator, [value, *constants], [result], name=name, **attributes)
        value = result


def _normalisation(prepare: Prepare) -> dict[str, tuple[str, tuple[float, ...]]]:
    """Return the operators on each channel after scaling with their constants, without those that change nothing."""
    steps: dict[str, tuple[str, tuple[float, ...]]] = {}
    if any(prepare.mean):
        steps["mean"] = "Sub", prepare.mean
    if set(prepare.std) != {1.0}:
        steps["std"] = "Div", prepare.std
    return steps


def _resize(prepare: Prepare) -> dict[str, object]:
    return {
        "mode": _MODES[prepare.interpolation],
        "antialias": 1,
        "coordinate_transformation_mode": "half_pixel",
        "cubic_coeff_a": _CUBIC_COEFFICIENT,
        "exclude_outside": 1,
    }


def _constants(spec: ModelSpec, prepare: Prepare) -> list[onnx.TensorProto]:
    channels = (1, 3, 1, 1)
    constants = {"scale": np.array(prepare.scale, np.float32)}
    for name, (_, values) in _normalisation(prepare).items():
        constants[name] = np.array(values, np.float32).reshape(channels)
    if _resizes(spec):
        constants["sizes"] = np.array(spec.outputs[0].shape, np.int64)
        constants["zero"], constants["white"] = np.array(0, np.float32), np.array(255, np.float32)
    return [numpy_helper.from_array(value, name) for name, value in constants.items()]


def _resizes(spec: ModelSpec) -> bool:
    return spec.inputs[0].shape[1] != spec.outputs[0].shape[2]
