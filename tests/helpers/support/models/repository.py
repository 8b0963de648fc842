"""A small Triton repository for tests: real configurations and preprocess graphs, models that compute next to nothing.

The detector answers to colour: a red, green or blue patch that fills a 32-pixel cell is one box of class 0, 1 or 2.
The depth model answers the mean of the normalised channels, so every pixel's value is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export import manifest, preprocess, repository
from export.graphs import value_info
from export.half import conversion
from routing import catalogue as catalogues
from routing.catalogue import Branch, Catalogue, ModelSpec
from routing.versions import name_of, served_folder, with_versions

CATALOGUE = catalogues.load()
CELL = 32
DETECTORS = ("yolo11n_320", "yolo11n_640")
DEPTH = ("midas_256",)
OTHERS = ("raft_256", "clip_image_224", "clip_text", "places365_resnet50_224")
_STRIDES = ((8, 0.1), (16, 0.1), (CELL, 1.0))  # finer grids stay under the default threshold: one box a cell
_OPSET = 17


def build(
    root: Path,
    branches: Iterable[str] = (*DETECTORS, *DEPTH),
    *,
    configs: bool = True,
    catalogue: Catalogue = CATALOGUE,
    precision: str | None = None,
) -> Path:
    """Write configurations of all models, and the files of `branches`; `weights` says `random` everywhere.

    Models have the `precision` of their branches, or the given one.
    """
    if configs:
        repository.write_configs(repository.configs(catalogue), root)
    for name in branches:
        branch = catalogue.branches[name]
        for spec in branch.models:
            write_model(root, spec, branch, precision)
    return root


def write_model(root: Path, spec: ModelSpec, branch: Branch, precision: str | None = None) -> None:
    """The files of one model, with its weights.json."""
    if spec.kind == "ensemble":
        served_folder(root / spec.name).mkdir(parents=True, exist_ok=True)
        return
    provenance = manifest.Provenance(
        "none" if spec.kind == "preprocess" else "random",
        manifest.Source("tests/helpers/support/models/repository.py"),
        {"onnx": onnx.__version__, "opset": _OPSET},
    )
    content = _content(spec, branch)
    if spec.kind == "onnx" and (precision or branch.precision) == "fp16":
        content = conversion.convert(onnx.load_from_string(content)).SerializeToString(deterministic=True)
        provenance = replace(provenance, precision="fp16")
    manifest.publish_graph(spec.name, content, root, provenance, branch.labels)


def _content(spec: ModelSpec, branch: Branch) -> bytes:
    if spec.kind == "preprocess":
        assert branch.prepare is not None
        return preprocess.build(spec, branch.prepare)
    if branch.family == "detect":
        return _serialise(spec, *_colour_detector(branch.size or 0, len(branch.labels)))
    return _serialise(spec, *_SMALL[branch.family](spec))


def _serialise(spec: ModelSpec, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> bytes:
    graph = helper.make_graph(
        nodes,
        spec.name,
        [value_info(tensor) for tensor in spec.inputs],
        [value_info(tensor) for tensor in spec.outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _colour_detector(size: int, classes: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Images -> mean colour of each cell -> how much one channel exceeds the others' mean -> class scores."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    parts = []
    for stride, weight in _STRIDES:
        cells = size // stride
        excess = np.zeros((classes, 3, 1, 1), np.float32)
        excess[:3, :, 0, 0] = weight * (1.5 * np.eye(3) - 0.5)
        constants += [
            numpy_helper.from_array(excess, f"excess{stride}"),
            numpy_helper.from_array(_grid(size, stride), f"grid{stride}"),
            numpy_helper.from_array(np.array([1, classes, cells * cells], np.int64), f"shape{stride}"),
        ]
        nodes += [
            helper.make_node(
                "AveragePool",
                ["images"],
                [f"mean{stride}"],
                kernel_shape=[stride, stride],
                strides=[stride, stride],
            ),
            helper.make_node("Conv", [f"mean{stride}", f"excess{stride}"], [f"raw{stride}"]),
            helper.make_node("Relu", [f"raw{stride}"], [f"score{stride}"]),
            helper.make_node("Reshape", [f"score{stride}", f"shape{stride}"], [f"rows{stride}"]),
            helper.make_node("Concat", [f"grid{stride}", f"rows{stride}"], [f"part{stride}"], axis=1),
        ]
        parts.append(f"part{stride}")
    nodes.append(helper.make_node("Concat", parts, ["output0"], axis=2))
    return nodes, constants


def _grid(size: int, stride: int) -> np.ndarray:
    """`[1, 4, cells^2]` float32: centre x, centre y, width, height of every cell in pixels."""
    centres = (np.arange(size // stride, dtype=np.float32) + 0.5) * stride
    y, x = np.meshgrid(centres, centres, indexing="ij")
    sides = np.full_like(x, stride)
    return np.stack([x, y, sides, sides]).reshape(1, 4, -1)


Graph = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]


def _mean_depth(spec: ModelSpec) -> Graph:
    """The mean over channels."""
    return [helper.make_node("ReduceMean", [spec.inputs[0].name], ["OUTPUT__0"], axes=[1], keepdims=0)], []


def _difference_flow(_: ModelSpec) -> Graph:
    """x: how much brighter the second frame is (mean over channels, normalised); y: half of it."""
    nodes = [
        helper.make_node("Sub", ["INPUT1__0", "INPUT0__0"], ["difference"]),
        helper.make_node("ReduceMean", ["difference"], ["x"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["x", "half"], ["y"]),
        helper.make_node("Concat", ["x", "y"], ["OUTPUT__0"], axis=1),
    ]
    return nodes, [numpy_helper.from_array(np.array(0.5, np.float32), "half")]


def mixing(width: int) -> np.ndarray:
    """`[3, width]` float32: how a frame's mean colour becomes an embedding or logits."""
    return np.random.default_rng(width).standard_normal((3, width)).astype(np.float32)


def _mean_colour(spec: ModelSpec) -> Graph:
    """The mean normalised colour, times `mixing`."""
    nodes = [
        helper.make_node("ReduceMean", ["INPUT__0"], ["colour"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["colour", "mixing"], ["OUTPUT__0"]),
    ]
    return nodes, [numpy_helper.from_array(mixing(spec.outputs[0].shape[1]), "mixing")]


def _token_rows(spec: ModelSpec) -> Graph:
    """Row r is sin(id of token r * (1 .. 512) / 1000) plus the running number of the row."""
    width = spec.outputs[0].shape[2]
    rows = np.arange(77, dtype=np.float32).reshape(1, 77, 1)
    steps = (np.arange(1, width + 1, dtype=np.float32) / 1000).reshape(1, 1, width)
    nodes = [
        helper.make_node("Cast", ["INPUT__0"], ["ids"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["ids", "axis"], ["column"]),
        helper.make_node("Mul", ["column", "steps"], ["angles"]),
        helper.make_node("Sin", ["angles"], ["waves"]),
        helper.make_node("Add", ["waves", "rows"], ["OUTPUT__0"]),
    ]
    return nodes, [
        numpy_helper.from_array(rows, "rows"),
        numpy_helper.from_array(steps, "steps"),
        numpy_helper.from_array(np.array([2], np.int64), "axis"),
    ]


_SMALL: dict[str, Callable[[ModelSpec], Graph]] = {
    "depth": _mean_depth,
    "flow": _difference_flow,
    "clip_image": _mean_colour,
    "clip_text": _token_rows,
    "places": _mean_colour,
}


def build_version(root: Path, name: str, number: str) -> str:
    """Write a further version of a branch, whose answers are doubled, and of its twin; return its name."""
    known = with_versions(CATALOGUE, {name: (number,)})
    version = known.branches[name_of(name, number)]
    twin = () if version.compact is None else version.compact.models[:1]
    texts = repository.configs(known)
    for spec in (*(spec for spec in version.models if spec.kind != "preprocess"), *twin):
        (root / spec.name / number).mkdir(parents=True)
        repository.write_configs({spec.name: texts[spec.name]}, root)
        write_model(root, spec, version)
    change_weights(root, version.name, known)
    return version.name


def change_weights(root: Path, name: str, catalogue: Catalogue = CATALOGUE) -> None:
    """Publish other weights of a branch that is there: all that it answers is doubled."""
    branch = catalogue.branches[name]
    (spec,) = (spec for spec in branch.models if spec.kind not in ("ensemble", "preprocess"))
    model = onnx.load_model(served_folder(root / spec.name) / "model.onnx")
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [f"half_{one}" if one == output else one for one in node.output]
    model.graph.node.append(helper.make_node("Add", [f"half_{output}"] * 2, [output]))
    source = manifest.Source("tests/helpers/support/models/repository.py")
    provenance = manifest.Provenance("random", source, {"onnx": onnx.__version__, "opset": _OPSET})
    content = model.SerializeToString(deterministic=True)
    manifest.publish_graph(spec.name, content, root, provenance, branch.labels)
