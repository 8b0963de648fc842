"""Graphs in half precision: the same contract, half the weights, and FP32 where FP16 would do harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from export import sharing, yolo11
from export.errors import ExportError
from export.graphs import check_contract
from export.half import conversion
from export.yolo11 import architecture
from export.yolo11.graph import build

SINGLE, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
RANDOM = np.random.default_rng(7)


def _graph(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any],
    shapes: tuple[Sequence[int], Sequence[int]] = ((1, 4, 8, 8), (1, 4, 8, 8)),
    kind: int = SINGLE,
) -> onnx.ModelProto:
    """A graph from `x` to `y`."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shapes[0])],
        [helper.make_tensor_value_info("y", SINGLE, shapes[1])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _kernel(channels: int = 4, side: int = 1) -> np.ndarray:
    return (0.3 * RANDOM.standard_normal((channels, 4, side, side))).astype(np.float32)


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def _precisions(model: onnx.ModelProto) -> dict[str, str]:
    """By node, the precision in which its first input arrives."""
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {t.name: t.data_type for t in inferred.initializer}
    kinds |= {
        v.name: v.type.tensor_type.elem_type
        for v in (*inferred.input, *inferred.output, *inferred.value_info)
    }
    words = {SINGLE: "fp32", HALF: "fp16"}
    return {
        node.name: words.get(kinds[node.input[0]], "other")
        for node in inferred.node
        if node.op_type != "Cast"
    }


def test_the_contract_stays_and_the_weights_halve() -> None:
    """FP32 goes in and comes out; between them is FP16, and the answer is near."""
    nodes = [
        helper.make_node("Conv", ["x", "shared_w"], ["a"], "conv"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "shared_v"], ["y"], "last"),
    ]
    single = _graph(nodes, {"shared_w": _kernel(), "shared_v": _kernel()})
    made = conversion.convert(single)
    assert _precisions(made) == {"conv": "fp16", "relu": "fp16", "last": "fp16"}
    assert [(t.name, t.data_type) for t in made.graph.initializer] == [
        ("shared_w_fp16", HALF),
        ("shared_v_fp16", HALF),
    ]
    assert sum(len(t.raw_data) for t in made.graph.initializer) * 2 == sum(
        len(t.raw_data) for t in single.graph.initializer
    )
    for side in ("input", "output"):
        assert list(getattr(made.graph, side)) == list(getattr(single.graph, side))
    x = RANDOM.standard_normal((1, 4, 8, 8)).astype(np.float32)
    expected, answer = _run(single, x), _run(made, x)
    assert answer.dtype == np.float32
    assert 0 < np.abs(answer - expected).max() < 0.01


def test_the_same_graph_gives_the_same_bytes() -> None:
    """And the FP32 graph is as it was."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "conv")]
    single = _graph(nodes, {"w": _kernel()})
    before = single.SerializeToString(deterministic=True)
    first, second = (conversion.convert(single).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert single.SerializeToString(deterministic=True) == before


def test_softmax_and_norms_stay_in_fp32() -> None:
    """Between two products they are cast up, and down again."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("LayerNormalization", ["a", "scale", "bias"], ["b"], "norm"),
        helper.make_node("Add", ["b", "bias"], ["c"], "add"),
        helper.make_node("MatMul", ["c", "w"], ["d"], "second"),
        helper.make_node("Mul", ["d", "scale"], ["e"], "multiply"),
        helper.make_node("Softmax", ["e"], ["f"], "softmax"),
        helper.make_node("MatMul", ["f", "w"], ["y"], "third"),
    ]
    constants = {
        "w": _kernel().reshape(4, 4),
        "scale": np.ones(4, np.float32),
        "bias": np.full(4, 0.1, np.float32),
    }
    model = _graph(nodes, constants, ((1, 8, 4), (1, 8, 4)))
    assert _precisions(conversion.convert(model)) == {
        "first": "fp16", "norm": "fp32", "add": "fp32", "second": "fp16", "multiply": "fp16", "softmax": "fp32",
        "third": "fp16",
    }  # fmt: skip
    everything = conversion.convert(
        model, conversion.Kept(frozenset(), dfl=False, sampling=False, tail=False)
    )
    assert set(_precisions(everything).values()) == {"fp16"}


def test_everything_after_the_last_product_is_fp32() -> None:
    """Positions in pixels, for example: at 960 the steps of FP16 are half a pixel."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("Sigmoid", ["a"], ["b"], "sigmoid"),
        helper.make_node("Mul", ["b", "pixels"], ["y"], "multiply"),
    ]
    made = conversion.convert(_graph(nodes, {"w": _kernel(), "pixels": np.float32(959.0)}))
    assert _precisions(made) == {"conv": "fp16", "sigmoid": "fp32", "multiply": "fp32"}


def test_the_bins_of_a_detector_are_averaged_in_fp32() -> None:
    """Softmax, the convolution with 0, 1, 2, … and what follows."""
    bins = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("Softmax", ["a"], ["b"], "softmax", axis=1),
        helper.make_node("Conv", ["b", "bins"], ["y"], "mean"),
    ]
    model = _graph(nodes, {"w": _kernel(), "bins": bins}, ((1, 4, 8, 8), (1, 1, 8, 8)))
    assert _precisions(conversion.convert(model)) == {"conv": "fp16", "softmax": "fp32", "mean": "fp32"}
    assert _precisions(conversion.convert(model, conversion.Kept(dfl=False)))["mean"] == "fp16"


def test_what_is_sampled_and_where_is_fp32() -> None:
    """Back to the convolutions: correlation (a product of features) and coordinates that updates are added to."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["features"], "encoder"),
        helper.make_node("MatMul", ["features", "features"], ["volume"], "correlation"),
        helper.make_node("Conv", ["x", "two"], ["delta"], "update"),
        helper.make_node("Transpose", ["delta"], ["moved"], "move", perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["moved", "grid"], ["where"], "coordinates"),
        helper.make_node("GridSample", ["volume", "where"], ["sampled"], "sample"),
        helper.make_node("Conv", ["sampled", "w"], ["y"], "motion"),
    ]
    grid = RANDOM.uniform(-1, 1, (1, 8, 8, 2)).astype(np.float32)
    model = _graph(nodes, {"w": _kernel(), "two": _kernel(2), "grid": grid})
    assert _precisions(conversion.convert(model)) == {
        "encoder": "fp16", "correlation": "fp32", "update": "fp16", "move": "fp32", "coordinates": "fp32",
        "sample": "fp32", "motion": "fp16",
    }  # fmt: skip
    other = _precisions(conversion.convert(model, conversion.Kept(sampling=False)))
    assert (other["correlation"], other["coordinates"]) == ("fp16", "fp16")


def test_scales_of_resize_stay_fp32_and_other_constants_follow() -> None:
    """ONNX has scales in FP32 alone; bounds of Clip are of the data's type."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("Clip", ["a", "", "most"], ["b"], "clip"),
        helper.make_node("Resize", ["b", "", "scales"], ["c"], "resize", mode="nearest"),
        helper.make_node("Conv", ["c", "w"], ["y"], "last"),
    ]
    scales = np.array([1, 1, 2, 2], np.float32)
    model = _graph(
        nodes, {"w": _kernel(), "most": np.float32(6), "scales": scales}, ((1, 4, 8, 8), (1, 4, 16, 16))
    )
    made = conversion.convert(model)
    assert set(_precisions(made).values()) == {"fp16"}
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert kinds == {"w_fp16": HALF, "most_fp16": HALF, "scales": SINGLE}
    assert np.isfinite(_run(made, np.ones((1, 4, 8, 8), np.float32))).all()


def test_a_table_of_embeddings_is_half() -> None:
    """Tables that integers look up are weights, too; the integers stay."""
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["a"], "look-up"),
        helper.make_node("MatMul", ["a", "w"], ["y"], "product"),
    ]
    constants = {"table": RANDOM.standard_normal((100, 4)).astype(np.float32), "w": _kernel().reshape(4, 4)}
    made = conversion.convert(_graph(nodes, constants, ((1, 7), (1, 7, 4)), onnx.TensorProto.INT64))
    assert _precisions(made) == {"look-up": "fp16", "product": "fp16"}
    assert {tensor.data_type for tensor in made.graph.initializer} == {HALF}


def test_an_output_that_others_read_is_given_back_in_fp32() -> None:
    """The graph's own output keeps its name and type."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], "conv"),
        helper.make_node("Relu", ["y"], ["a"], "relu"),
        helper.make_node("Conv", ["a", "w"], ["b"], "last"),
    ]
    model = _graph(nodes, {"w": _kernel()})
    model.graph.output.append(helper.make_tensor_value_info("b", SINGLE, (1, 4, 8, 8)))
    made = conversion.convert(model)
    assert _precisions(made) == {"conv": "fp16", "relu": "fp16", "last": "fp16"}
    assert [value.type.tensor_type.elem_type for value in made.graph.output] == [SINGLE, SINGLE]


def test_a_mask_is_bounded_and_infinity_stays() -> None:
    """`-3.4e38`, which hides a token, is the lowest number of FP16 then."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("Add", ["a", "shared_mask"], ["b"], "add"),
        helper.make_node("Conv", ["b", "w"], ["y"], "last"),
    ]
    mask = np.array([np.finfo(np.float32).min, -np.inf], np.float32).reshape(1, 1, 2, 1)
    made = conversion.convert(
        _graph(nodes, {"w": _kernel(), "shared_mask": mask}, ((1, 4, 2, 8), (1, 4, 2, 8)))
    )
    (found,) = [numpy_helper.to_array(t) for t in made.graph.initializer if t.name == "shared_mask_fp16"]
    assert found.ravel().tolist() == [-conversion.LARGEST, -np.inf]


def test_weights_beyond_fp16_are_refused() -> None:
    """Bounded, they would be others."""
    nodes = [helper.make_node("Conv", ["x", "shared_w"], ["y"], "conv")]
    with pytest.raises(ExportError, match="weights beyond 65504"):
        conversion.convert(_graph(nodes, {"shared_w": np.full((4, 4, 1, 1), 1e5, np.float32)}))


def test_branches_in_a_graph_are_refused() -> None:
    """Their parts have tensors of their own."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])],
        "i",
        [],
        [helper.make_tensor_value_info("z", SINGLE, (1, 4, 8, 8))],
    )
    nodes = [helper.make_node("If", ["so"], ["y"], "if", then_branch=inner, else_branch=inner)]
    with pytest.raises(ExportError, match="branches or loops"):
        conversion.convert(_graph(nodes, {"so": np.array(True)}))


def test_sizes_of_one_network_share_their_half_weights() -> None:
    """A YOLO11 at two sizes: one file of half the bytes, and boxes within a fraction of a pixel."""
    network = architecture.random("n", 0)
    files = {}
    for side in (64, 96):
        spec = yolo11.specification("yolo11n", side)
        single = onnx.load_from_string(build(network, spec, yolo11.OPSET))
        made = conversion.convert(single)
        check_contract(made, spec, yolo11.OPSET)
        content = bytes(made.SerializeToString(deterministic=True))
        (_, name, data), (_, _, whole) = sharing.split(content), sharing.split(single.SerializeToString())
        files[name] = data
        assert len(data) < 0.6 * len(whole)  # each tensor begins on a page of its own
        picture = [yolo11.scene(1, side)]
        (expected,), (answer,) = (
            yolo11.run(single.SerializeToString(), spec, picture),
            yolo11.run(content, spec, picture),
        )
        assert np.abs(answer - expected)[:, :4].max() < 1
        assert np.abs(answer - expected)[:, 4:].max() < 0.02
    assert len(files) == 1
