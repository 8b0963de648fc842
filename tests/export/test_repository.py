"""The committed config.pbtxt files are the catalogue's, and Triton's own parser reads in them what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from export import repository
from routing import catalogue as catalogues
from routing import overlay
from routing.catalogue import Branch, ModelSpec, TensorSpec

# The export environment collects this folder for its own tests, and has no client of Triton.
pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")

CATALOGUE = catalogues.load()
COMMITTED = Path(__file__).parents[2] / "triton" / "models"
TEXTS = repository.configs(CATALOGUE)
CASES = [
    pytest.param(spec, branch, id=spec.name)
    for branch in CATALOGUE.branches.values()
    for spec in branch.models
]
ENSEMBLES = [case for case in CASES if case.values[0].kind == "ensemble"]  # type: ignore[union-attr]  # always a ModelSpec


def _parse(name: str) -> Any:
    return text_format.Parse(TEXTS[name], pb.ModelConfig())


def _tensors(values: Any) -> list[TensorSpec]:
    return [
        TensorSpec(value.name, pb.DataType.Name(value.data_type).removeprefix("TYPE_"), tuple(value.dims))
        for value in values
    ]


def test_committed_files_are_the_catalogues() -> None:
    """The files under triton/models in git are exactly those that the catalogue generates."""
    assert repository.drift(TEXTS, COMMITTED) == []


def test_every_model_of_the_catalogue_has_a_file() -> None:
    """Ensembles, preprocess graphs, ONNX models, all fifteen YOLO11 and their twins are there."""
    assert TEXTS.keys() == CATALOGUE.models.keys()
    assert sum(name.startswith("yolo11") for name in TEXTS) == 30


@pytest.mark.parametrize(("spec", "branch"), CASES)
def test_tensors_are_the_catalogues(spec: ModelSpec, branch: Branch) -> None:
    """Names, types and whole shapes of inputs and outputs, with no batch axis of Triton's and no dynamic one."""
    config = _parse(spec.name)
    assert config.name == spec.name
    assert config.max_batch_size == 0
    assert _tensors(config.input) == list(spec.inputs)
    assert _tensors(config.output) == list(spec.outputs)


@pytest.mark.parametrize(("spec", "branch"), [case for case in CASES if case not in ENSEMBLES])
def test_models_run_on_onnxruntime_gpu_safely(spec: ModelSpec, branch: Branch) -> None:
    """The backend is named (no platform), it runs where there is a GPU, and shares a small one."""
    config = _parse(spec.name)
    assert (config.backend, config.platform) == ("onnxruntime", "")
    assert config.default_model_filename == "model.onnx"
    assert [(g.kind, g.count) for g in config.instance_group] == [(pb.ModelInstanceGroup.KIND_AUTO, 1)]
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert parameters == {"cudnn_conv_algo_search": "1", "arena_extend_strategy": "1"}


@pytest.mark.parametrize(("spec", "branch"), CASES)
def test_no_configuration_names_a_file_of_one_version(spec: ModelSpec, branch: Branch) -> None:
    """Another version of a model may be served alone, so no configuration needs a file of version 1."""
    assert {output.label_filename for output in _parse(spec.name).output} == {""}


@pytest.mark.parametrize(("spec", "branch"), ENSEMBLES)
def test_ensembles_string_their_parts_together(spec: ModelSpec, branch: Branch) -> None:
    """Every input of a step is an input of the ensemble or an output before it, with the same type and shape."""
    config = _parse(spec.name)
    assert (config.backend, config.platform) == ("", "ensemble")
    steps = config.ensemble_scheduling.step
    assert [step.model_name for step in steps] == [model.name for model in branch.models[1:]]
    flows = {tensor.name: (tensor.datatype, tensor.shape) for tensor in spec.inputs}
    for step in steps:
        assert step.model_version == -1
        model = CATALOGUE.models[step.model_name]
        assert set(step.input_map) == {tensor.name for tensor in model.inputs}
        assert set(step.output_map) == {tensor.name for tensor in model.outputs}
        for tensor in model.inputs:
            assert flows[step.input_map[tensor.name]] == (tensor.datatype, tensor.shape)
        for tensor in model.outputs:
            flows[step.output_map[tensor.name]] = (tensor.datatype, tensor.shape)
    for tensor in spec.outputs:
        assert flows[tensor.name] == (tensor.datatype, tensor.shape)


def test_flow_keeps_its_two_frames_apart() -> None:
    """RAFT's first and second frame stay the first and the second through the preprocess model."""
    prepare, flow = _parse("raft_256").ensemble_scheduling.step
    for frame in ("0", "1"):
        value = prepare.output_map[f"OUTPUT{frame}__0"]
        assert prepare.input_map[f"INPUT{frame}__0"] == f"INPUT{frame}__0"
        assert flow.input_map[f"INPUT{frame}__0"] == value


def test_text_models_have_one_step() -> None:
    """Tokens need no preprocess graph: clip_text hands them on."""
    (step,) = _parse("clip_text").ensemble_scheduling.step
    assert step.model_name == "clip_text_onnx"


def test_drift_names_what_is_wrong(tmp_path: Path) -> None:
    """A missing file, a changed one and one of no model are each named."""
    texts = {name: TEXTS[name] for name in ("clip_text", "midas_256", "raft_256")}
    assert repository.write_configs(texts, tmp_path) == list(texts)
    assert repository.drift(texts, tmp_path) == []
    (tmp_path / "clip_text" / "config.pbtxt").unlink()
    (tmp_path / "midas_256" / "config.pbtxt").write_text(texts["midas_256"] + "# by hand\n")
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "config.pbtxt").write_text("")
    assert repository.drift(texts, tmp_path) == [
        "clip_text/config.pbtxt",
        "midas_256/config.pbtxt",
        "stranger/config.pbtxt",
    ]


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    """Writing again writes nothing; a file that drifted is put right."""
    texts = {name: TEXTS[name] for name in ("clip_text", "midas_256")}
    repository.write_configs(texts, tmp_path)
    assert repository.write_configs(texts, tmp_path) == []
    (tmp_path / "clip_text" / "config.pbtxt").write_text("")
    assert repository.write_configs(texts, tmp_path) == ["clip_text"]
    assert repository.drift(texts, tmp_path) == []


def _accelerated(tmp_path: Path, accelerator: str) -> Any:
    """The configuration of yolo11x_640 with an accelerator, as Triton's own parser reads it."""
    own = tmp_path / "gpu.toml"
    own.write_text(f'[[accelerate]]\nbranches = ["yolo11x_640"]\naccelerator = {accelerator}\n')
    texts = repository.configs(overlay.load(own))
    assert {name for name, text in texts.items() if text != TEXTS[name]} == {"yolo11x_640"}
    return text_format.Parse(texts["yolo11x_640"], pb.ModelConfig())


def test_tensorrt_is_configured_by_the_names_of_the_backend(tmp_path: Path) -> None:
    """All options reach the GPU's accelerator; the parameters for CUDA stay, which runs what TensorRT can't."""
    config = _accelerated(
        tmp_path,
        '{ name = "tensorrt", precision = "fp16", workspace = "1GiB", cache = "/a b/\\"ö\\"" }',
    )
    (row,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (row.name, dict(row.parameters)) == (
        "tensorrt",
        {
            "precision_mode": "FP16",
            "max_workspace_size_bytes": "1073741824",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": '/a b/"ö"',
        },
    )
    assert not config.optimization.execution_accelerators.cpu_execution_accelerator
    assert set(config.parameters) == {"cudnn_conv_algo_search", "arena_extend_strategy"}


def test_tensorrt_alone_asks_for_its_precision(tmp_path: Path) -> None:
    """Without options it computes in FP32 and keeps no engines."""
    config = _accelerated(tmp_path, '"tensorrt"')
    (row,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (row.name, dict(row.parameters)) == ("tensorrt", {"precision_mode": "FP32"})


def test_cuda_has_its_limit_where_the_backend_reads_it(tmp_path: Path) -> None:
    """The backend overwrites a limit among the accelerator's own options."""
    config = _accelerated(tmp_path, '{ name = "cuda", memory_limit = "2GiB" }')
    (row,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (row.name, dict(row.parameters)) == ("cuda", {"cudnn_conv_use_max_workspace": "0"})
    assert config.parameters["gpu_mem_limit"].string_value == str(2 << 30)
    assert config.parameters["cudnn_conv_algo_search"].string_value == "1"


def test_openvino_is_an_accelerator_of_processors(tmp_path: Path) -> None:
    """It has no options, and the GPU has no accelerator then."""
    accelerators = _accelerated(tmp_path, '"openvino"').optimization.execution_accelerators
    assert [(row.name, dict(row.parameters)) for row in accelerators.cpu_execution_accelerator] == [
        ("openvino", {})
    ]
    assert not accelerators.gpu_execution_accelerator
