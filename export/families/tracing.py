"""From a network in torch to a checked ONNX graph: what the dense families have in common."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from export.errors import ExportError
from export.graphs import check_contract
from export.sharing import LEAST_BYTES, PREFIX
from routing.catalogue import ModelSpec

THREADS = 2  # everywhere the same: how sums are split decides the last bits
# Of two different pictures' answers, the least mean difference against the answers' own spread.
ALIVE = 0.01

Array = npt.NDArray[Any]


def settle_threads() -> None:
    torch.set_num_threads(THREADS)


def trace(module: Any, examples: Sequence[Array], spec: ModelSpec, opset: int) -> bytes:
    """The graph, by the classic exporter: fixed shapes, no time stamp, the same bytes every time.

    Raises:
        ExportError: the graph hasn't the contract of `spec`.
    """
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the classic exporter, chosen on purpose
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # tests of shapes are constants here
        warnings.simplefilter("ignore", UserWarning)  # constant folding leaves slices with steps alone
        torch.onnx.export(
            module,
            tuple(torch.from_numpy(array) for array in examples),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
        )
    model = onnx.load_from_string(file.getvalue())
    check_contract(model, spec, opset)
    name_parameters(model, module)
    return bytes(model.SerializeToString(deterministic=True))


def name_parameters(model: onnx.ModelProto, module: Any) -> None:
    """Rename the initializers that are large parameters of `module`, as they are or transposed, by their bytes.

    Sizes of one architecture agree in these names and bytes, and in nothing else: the exporter numbers folded
    constants as they come. What bears such a name can be shared (`export.sharing`).
    """
    known = _parameter_digests(module)
    renamed: dict[str, str] = {}
    for tensor in model.graph.initializer:
        digest = hashlib.sha256(tensor.raw_data).hexdigest()
        if len(tensor.raw_data) >= LEAST_BYTES and digest in known:
            renamed[tensor.name] = tensor.name = f"{PREFIX}{digest[:24]}_{'x'.join(map(str, tensor.dims))}"
    _drop_twins(model)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)


def _parameter_digests(module: Any) -> set[str]:
    digests = set()
    for value in module.state_dict().values():
        array = value.numpy()
        if array.nbytes >= LEAST_BYTES:
            digests.add(hashlib.sha256(array.tobytes()).hexdigest())
            if array.ndim == 2:
                digests.add(hashlib.sha256(array.T.tobytes()).hexdigest())
    return digests


def _drop_twins(model: onnx.ModelProto) -> None:
    """One initializer a name: two parameters of equal bytes have become one."""
    seen: set[str] = set()
    for tensor in list(model.graph.initializer):
        if tensor.name in seen:
            model.graph.initializer.remove(tensor)
        seen.add(tensor.name)


def run(content: bytes, spec: ModelSpec, feeds: Sequence[Sequence[Array]]) -> list[Array]:
    """Return ONNX Runtime's outputs for each list of inputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in spec.inputs]
    return [session.run([spec.outputs[0].name], dict(zip(names, feed, strict=True)))[0] for feed in feeds]


def answers(module: Any, feeds: Sequence[Sequence[Array]]) -> list[Array]:
    """Return torch's outputs for each list of inputs."""
    with torch.no_grad():
        return [module(*(torch.from_numpy(array) for array in feed)).numpy() for feed in feeds]


def relative_error(expected: Array, answer: Array) -> float:
    """The largest difference against the largest expected value; NaN when there is one."""
    return float(np.abs(answer - expected).max() / np.abs(expected).max())


def check_parity(name: str, expected: Sequence[Array], found: Sequence[Array], tolerance: float) -> None:
    """The answers to two different inputs equal the expected ones, and aren't constants.

    Raises:
        ExportError: they don't, or they are.
    """
    for reference, answer in zip(expected, found, strict=True):
        error = relative_error(reference, answer)
        if not error <= tolerance:  # a NaN is refused as well
            raise ExportError(f"{name}: ONNX Runtime and torch differ by {error:.3g} of the largest value")
    difference = float(np.abs(found[0] - found[1]).mean())
    if not difference >= ALIVE * float(np.std(found[0])) > 0:
        raise ExportError(f"{name}: two pictures get the same answer; these weights ignore their input")


def scene(side: int, seed: int, shift: int = 0) -> Array:
    """A made-up picture as networks meet it, FP32 `[1, 3, side, side]` in -1…1: soft clouds, hard-edged discs.

    `shift` moves all of it to the right by so many pixels.
    """
    generator = np.random.default_rng(seed)
    total = np.zeros((3, side, side), np.float32)
    for cells in (2, 4, 8, 16, 32, 64):
        grid = generator.standard_normal((1, 3, cells, cells)).astype(np.float32)
        octave = torch.nn.functional.interpolate(torch.from_numpy(grid), (side, side), mode="bilinear")
        total += octave[0].numpy() / np.float32(cells) ** 0.5
    total /= np.float32(3 * total.std())
    rows, columns = np.mgrid[:side, :side] / side
    for _ in range(12):
        x, y, radius = generator.random(3) * (1, 1, 0.15)
        total[:, (columns - x) ** 2 + (rows - y) ** 2 < radius**2] = generator.uniform(-1, 1, (3, 1))
    return np.ascontiguousarray(np.roll(np.clip(total, -1, 1), shift, axis=2)[None], dtype=np.float32)
