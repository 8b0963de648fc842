"""The preprocess graphs compute what the catalogue says, bit by bit, at fixed shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from app.media.fit import letterbox_into
from app.vision.letterbox import Letterbox
from export import preprocess
from routing import catalogue as catalogues
from routing.catalogue import Branch, ModelSpec, Prepare

CATALOGUE = catalogues.load()
GRAPHS = {
    spec.name: (spec, branch)
    for branch in CATALOGUE.branches.values()
    for spec in branch.models
    if spec.kind == "preprocess"
}
CASES = [pytest.param(*graph, id=name) for name, graph in GRAPHS.items()]
SAME_SIZE = [case for case in CASES if case.values[1].model_size is None]  # type: ignore[union-attr]  # always a Branch
RESIZED = [case for case in CASES if case not in SAME_SIZE]

Array = npt.NDArray[np.float32]


def _prepare(branch: Branch) -> Prepare:
    prepare = CATALOGUE[branch.family].prepare
    assert prepare is not None
    return prepare


def _inputs(spec: ModelSpec) -> dict[str, npt.NDArray[np.uint8]]:
    """Noise that holds every value of a byte, another for each input."""
    rng = np.random.default_rng(7)
    return {t.name: rng.integers(0, 256, t.shape, dtype=np.uint8) for t in spec.inputs}


def _run(content: bytes, inputs: dict[str, npt.NDArray[np.uint8]]) -> list[Array]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    answers: list[Array] = session.run(None, inputs)
    return answers


def _normalise(planes: Array, prepare: Prepare) -> Array:
    """`[1, 3, H, W]` of 0…255 -> normalised, every step rounded to FP32 as the graph rounds it."""
    mean = np.array(prepare.mean, np.float32).reshape(1, 3, 1, 1)
    std = np.array(prepare.std, np.float32).reshape(1, 3, 1, 1)
    answer: Array = (planes / np.float32(prepare.scale) - mean) / std
    return answer


def _cubic(source: int, target: int) -> npt.NDArray[np.float64]:
    """Pillow's antialiased bicubic as a matrix `[target, source]` (`precompute_coeffs` of its Resample.c)."""
    scale = source / target
    centres = (np.arange(target) + 0.5)[:, None] * scale
    x = np.abs((np.arange(source)[None] + 0.5 - centres) / scale)
    near = (1.5 * x - 2.5) * x * x + 1
    far = -0.5 * (((x - 5) * x + 8) * x - 4)
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    matrix: npt.NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return matrix


def test_every_family_with_an_ensemble_and_pictures_has_graphs() -> None:
    """Detection's twins share one a size; depth, flow (two networks), CLIP and scenes have three sizes each."""
    assert len(CASES) == 18
    assert len(RESIZED) == 1


@pytest.mark.parametrize(("spec", "branch"), SAME_SIZE)
def test_graph_equals_numpy_bit_by_bit(spec: ModelSpec, branch: Branch) -> None:
    """Cast, transpose and normalise give the bits that numpy gives in FP32, for every input of the model."""
    prepare, inputs = _prepare(branch), _inputs(spec)
    answers = _run(preprocess.build(spec, prepare), inputs)
    assert len(answers) == len(spec.outputs)
    for pixels, answer in zip(inputs.values(), answers, strict=True):
        expected = _normalise(pixels.transpose(0, 3, 1, 2).astype(np.float32), prepare)
        assert answer.dtype == np.float32
        np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize(("spec", "branch"), RESIZED)
def test_resize_equals_pillows_antialiased_bicubic(spec: ModelSpec, branch: Branch) -> None:
    """Resizing for the network counts all pixels: Pillow's filter, clipped to the values of a pixel.

    ONNX Runtime computes the filter in FP32: 1e-4 after normalisation is a hundredth of one step of a byte.
    """
    prepare, inputs = _prepare(branch), _inputs(spec)
    assert prepare.interpolation == "bicubic"
    (answer,) = _run(preprocess.build(spec, prepare), inputs)
    assert branch.size is not None
    assert branch.model_size is not None
    matrix = _cubic(branch.size, branch.model_size)
    planes = inputs["INPUT__0"].transpose(0, 3, 1, 2).astype(np.float64)
    resized = matrix @ planes @ matrix.T  # [1, 3, 336, 336] -> [1, 3, 320, 320]
    expected = _normalise(resized.clip(0, 255).astype(np.float32), prepare)
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-4)


def test_every_border_pixel_counts_after_the_resize() -> None:
    """At 336 the last row and column change the answer, which a network with 32-pixel patches would ignore."""
    (case,) = RESIZED
    spec, branch = case.values
    assert isinstance(spec, ModelSpec)
    assert isinstance(branch, Branch)
    content = preprocess.build(spec, _prepare(branch))
    (shape,) = (tensor.shape for tensor in spec.inputs)
    dark, framed = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    framed[:, -1, -1] = 255
    (before,), (after,) = (_run(content, {"INPUT__0": pixels}) for pixels in (dark, framed))
    assert np.abs(after - before).max() > 1


@pytest.mark.parametrize(("spec", "branch"), CASES)
def test_shapes_are_fixed_and_the_file_is_portable(spec: ModelSpec, branch: Branch) -> None:
    """Inputs and outputs have the catalogue's shapes; IR and opset are those that Triton 24.08 loads."""
    model = onnx.load_from_string(preprocess.build(spec, _prepare(branch)))
    onnx.checker.check_model(model, full_check=True)
    for values, tensors in ((model.graph.input, spec.inputs), (model.graph.output, spec.outputs)):
        assert [value.name for value in values] == [tensor.name for tensor in tensors]
        dims = [tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in values]
        assert dims == [tensor.shape for tensor in tensors]
    assert model.ir_version == 8
    assert [entry.version for entry in model.opset_import] == [17 if branch.model_size is None else 18]


@pytest.mark.parametrize(("spec", "branch"), CASES)
def test_the_same_bytes_every_time(spec: ModelSpec, branch: Branch) -> None:
    """Building a graph twice gives equal bytes, so the digest says whether anything changed."""
    assert preprocess.build(spec, _prepare(branch)) == preprocess.build(spec, _prepare(branch))


@pytest.mark.parametrize("size", [320, 640, 960])
def test_the_detector_s_pixels_become_the_bits_that_the_gateway_would_send(size: int) -> None:
    """Every one of the 256 levels, in every channel: x / 255 rounded to FP32, by one division and nothing else."""
    spec, branch = GRAPHS[f"preprocess_yolo11_{size}"]
    content = preprocess.build(spec, _prepare(branch))
    assert [node.op_type for node in onnx.load_from_string(content).graph.node] == [
        "Cast",
        "Transpose",
        "Div",
    ]
    pixels = np.resize(np.arange(256, dtype=np.uint8).repeat(3), spec.inputs[0].shape)
    (answer,) = _run(content, {"INPUT__0": pixels})
    images = np.empty((1, 3, size, size), np.float32)
    letterbox_into(pixels[0], Letterbox.fit(size, size, size), images, {})
    assert answer.tobytes() == images.tobytes()
    assert len(np.unique(answer)) == 256


def test_normalisation_of_the_catalogue_reaches_the_graph() -> None:
    """Another mean in the catalogue is another graph with another answer."""
    spec, branch = GRAPHS["preprocess_midas_256"]
    prepare = _prepare(branch)
    other = replace(prepare, mean=(0.0, 0.0, 0.0))
    inputs = _inputs(spec)
    (first,), (second,) = (_run(preprocess.build(spec, each), inputs) for each in (prepare, other))
    assert not np.array_equal(first, second)
