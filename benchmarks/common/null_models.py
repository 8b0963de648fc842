"""A Triton repository with the catalogue's contracts whose models compute next to nothing.

    python -m benchmarks.common.null_models FOLDER [--boxes 10]

What is left of a request's time is then the gateway's own and the way to Triton and back. Configurations are those of
`triton/models`, ensembles included; every graph reads one value of each input and answers a constant around it.
A detector answers `--boxes` boxes above every usual threshold, each with some weaker candidates that NMS has to
suppress, and the first value of its input in its last anchor (which scores nothing): proof that the input has arrived.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export import manifest, repository
from export.graphs import check_contract, value_info
from routing import catalogue as catalogues
from routing.catalogue import Catalogue, ModelSpec, TensorSpec

BOXES = 10
CANDIDATES_A_BOX = 3
_OPSET = 17
_IR_VERSION = 8
# Where a 16:9 frame lies in its letterbox, and a little less.
_TOP, _BOTTOM = 0.25, 0.75
Graph = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]


def main() -> None:
    """Write the repository of the baseline with YOLO11n."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--boxes", type=int, default=BOXES, help="that a detector finds (0 to 2000)")
    options = parser.parse_args()
    build(options.folder, boxes=options.boxes)
    print(f"{options.folder}: {len(list(options.folder.glob('*/1/model.onnx')))} graphs")


def build(root: Path, branches: Iterable[str] | None = None, boxes: int = BOXES) -> Path:
    """Write configurations and graphs of `branches` (default: `baseline`) under `root`; returns it."""
    catalogue = catalogues.load()
    texts = repository.configs(catalogue)
    for name in baseline(catalogue) if branches is None else branches:
        branch = catalogue.branches[name]
        repository.write_configs({spec.name: texts[spec.name] for spec in branch.models}, root)
        for spec in branch.models:
            _write(root, spec, catalogue[branch.family].labels, boxes)
    return root


def baseline(catalogue: Catalogue) -> list[str]:
    """Every branch of every family in its least variant (YOLO11n, RAFT small), without twins."""
    return [
        branch.name
        for family in catalogue.families.values()
        for branch in family.of_variant(family.variants[0] if family.variants else None)
    ]


def _write(root: Path, spec: ModelSpec, labels: tuple[str, ...], boxes: int) -> None:
    """The files of one model; an ensemble is its configuration and an empty version."""
    if spec.kind == "ensemble":
        (root / spec.name / manifest.VERSION_FOLDER).mkdir(parents=True, exist_ok=True)
        return
    provenance = manifest.Provenance(
        "none" if spec.kind == "preprocess" else "random",
        manifest.Source("benchmarks/common/null_models.py"),
        {"onnx": onnx.__version__, "opset": _OPSET},
    )
    manifest.publish_graph(spec.name, graph_of(spec, boxes), root, provenance, labels)


def graph_of(spec: ModelSpec, boxes: int = BOXES) -> bytes:
    """The ONNX model that keeps `spec`'s contract; the same bytes every time."""
    nodes, constants = _first_values(spec.inputs)
    for output in spec.outputs:
        more, others = _boxes(output, boxes) if output.name == "output0" else _filled(output)
        nodes += more
        constants += others
    graph = helper.make_graph(
        nodes,
        spec.name,
        [value_info(t) for t in spec.inputs],
        [value_info(t) for t in spec.outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    check_contract(onnx.shape_inference.infer_shapes(model, strict_mode=True), spec, _OPSET)
    return bytes(model.SerializeToString(deterministic=True))


def _first_values(inputs: Iterable[TensorSpec]) -> Graph:
    """`value`, `[1]` float32: one more than the sum of the first element of each input."""
    nodes: list[onnx.NodeProto] = []
    constants = [numpy_helper.from_array(np.ones(1, np.float32), "one")]
    value = "one"
    inputs = list(inputs)
    for at, tensor in enumerate(inputs):
        rank = len(tensor.shape)
        for name, values in (("from", [0] * rank), ("to", [1] * rank)):
            constants.append(helper.make_tensor(f"{name}{at}", TensorProto.INT64, [rank], values))
        total = "value" if at == len(inputs) - 1 else f"sum{at}"
        nodes += [
            helper.make_node("Slice", [tensor.name, f"from{at}", f"to{at}"], [f"corner{at}"]),
            helper.make_node("Cast", [f"corner{at}"], [f"number{at}"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", [f"number{at}", "flat"], [f"first{at}"]),
            helper.make_node("Add", [value, f"first{at}"], [total]),
        ]
        value = total
    return nodes, [*constants, helper.make_tensor("flat", TensorProto.INT64, [1], [1])]


def _filled(output: TensorSpec) -> Graph:
    """The value everywhere."""
    shape = helper.make_tensor(f"{output.name}_shape", TensorProto.INT64, [len(output.shape)], output.shape)
    return [helper.make_node("Expand", ["value", shape.name], [output.name])], [shape]


def _boxes(output: TensorSpec, boxes: int) -> Graph:
    """Constant anchors, and a last one whose values are 0 but for the first: the value."""
    rows = output.shape[1]
    unit = np.zeros((1, rows, 1), np.float32)
    unit[0, 0] = 1
    constants = [
        numpy_helper.from_array(anchors(output.shape, boxes)[:, :, :-1], "anchors"),
        numpy_helper.from_array(unit, "unit"),
    ]
    nodes = [
        helper.make_node("Mul", ["value", "unit"], ["last"]),
        helper.make_node("Concat", ["anchors", "last"], [output.name], axis=2),
    ]
    return nodes, constants


def anchors(shape: tuple[int, ...], boxes: int) -> NDArray[np.float32]:
    """`[1, 4 + C, A]` float32 in YOLO's layout with `boxes` boxes apart from each other, and their weaker doubles.

    Scores are 0.9 for the boxes and less for the doubles; everything else scores 0.01.
    """
    _, rows, count = shape
    size = round(32 * math.sqrt(count / 21))
    output = np.full(shape, 0.01, np.float32)
    output[0, :4] = size / 2
    columns = max(1, math.ceil(math.sqrt(2 * boxes)))
    lines = max(1, math.ceil(boxes / columns))
    pitch = np.array([size / columns, size * (_BOTTOM - _TOP) / lines])
    places = np.linspace(0, count - 2, max(1, boxes * CANDIDATES_A_BOX), dtype=np.int64)
    for candidate, place in enumerate(places[: boxes * CANDIDATES_A_BOX]):
        box, double = divmod(candidate, CANDIDATES_A_BOX)
        cell = np.array([box % columns, box // columns])
        centre = (cell + 0.5) * pitch + [double * 0.02 * pitch[0], _TOP * size]
        output[0, :4, place] = [*centre, *(0.7 * pitch)]
        output[0, 4 + box % (rows - 4), place] = 0.9 - 0.1 * double
    return output


if __name__ == "__main__":
    main()
