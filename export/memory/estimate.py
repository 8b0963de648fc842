"""The estimate of a model's memory: parameters, activations, ONNX Runtime's arena, scratch memory of convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from export.memory.arena import Arena, Place, rounded
from export.memory.graph import Liveness, Step, Tensor, constants, initializer_bytes, shared_files, tensors
from export.memory.shapes import with_shapes
from routing.memory import ModelMemory

# Winograd's F(4x4, 3x3), which cuDNN may choose: 36 values for 16 outputs, and for the 9 weights of a kernel.
_WINOGRAD_TILE, _WINOGRAD_KERNEL = 36 / 16, 36 / 9
_LEAST_WORKSPACE = 32 << 20  # what ONNX Runtime lets cuDNN have while it looks for an algorithm


def of_file(path: Path) -> ModelMemory:
    """Estimate the memory of the model in this file; parameters in files beside it aren't read."""
    return estimate(onnx.load(path, load_external_data=False))


def estimate(model: onnx.ModelProto) -> ModelMemory:
    """Estimate the memory of a model with fixed shapes.

    The order of nodes is that of the file, and none are fused; ONNX Runtime may choose another order, and fuses some.
    What follows from parameters alone is a parameter.

    Raises:
        ValueError: it has no nodes.
    """
    if not model.graph.node:
        raise ValueError("a model without nodes")
    graph = with_shapes(model)
    known = tensors(graph)
    ready = constants(graph)
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    made = [name for node in graph.node for name in node.output if name and name not in ready]
    steps = list(Liveness(graph, known).steps())
    return ModelMemory(
        weights=sum(
            rounded(initializer_bytes(tensor)) for tensor in graph.initializer if tensor.name in used
        ),
        activations=_peak(steps),
        arena=_arena(steps),
        workspace=_workspace(graph, known),
        shared=shared_files(graph),
        unknown=sum(name not in known for name in made),
    )


def _peak(steps: Sequence[Step]) -> int:
    alive: dict[int, int] = {}
    highest = 0
    for step in steps:
        alive |= {number: rounded(size) for number, size in step.taken}
        highest = max(highest, sum(alive.values()))
        for number in step.freed:
            del alive[number]
    return highest


def _arena(steps: Sequence[Step]) -> int:
    """The arena after two runs: one that allocates tensor by tensor, and one that takes a block for them all."""
    arena = Arena()
    places: dict[int, Place] = {}
    for step in steps:
        places |= {number: arena.allocate(size) for number, size in step.taken}
        for number in step.freed:
            arena.free(places.pop(number))
    for place in places.values():
        arena.free(place)
    arena.allocate(_peak(steps))
    return arena.total


def _workspace(graph: onnx.GraphProto, known: Mapping[str, Tensor]) -> int:
    """Scratch memory of the convolution that may need most; 0 without convolutions."""
    kernels = {tensor.name: tensor for tensor in graph.initializer}
    needs = [
        _scratch(node, known, kernels[node.input[1]])
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in kernels
    ]
    return max((_LEAST_WORKSPACE, *needs)) if needs else 0


def _scratch(node: onnx.NodeProto, known: Mapping[str, Tensor], kernel: onnx.TensorProto) -> int:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    strides = list(attributes["strides"].ints) if "strides" in attributes else [1, 1]
    groups = attributes["group"].i if "group" in attributes else 1
    if list(kernel.dims[2:]) != [3, 3] or strides != [1, 1] or groups != 1:
        return 0
    tiles = sum(known[name].size for name in (node.input[0], node.output[0]) if name in known)
    return int(_WINOGRAD_TILE * tiles + _WINOGRAD_KERNEL * initializer_bytes(kernel))
