"""One branch on ONNX Runtime: its loaded graphs, and leases over them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from app.deadline import Deadline
from app.engine.base import NUMPY_DTYPES, ModelState, Weights, allocate, is_out_of_memory
from app.engine.contracts import difference
from app.engine.embedded.graph_cache import GraphCache, Source
from app.errors import DeadlineExceeded, GatewayError, InferenceFailed, InsufficientGpuMemory
from routing.accelerators import Accelerator
from routing.catalogue import Branch, ModelSpec, TensorSpec

# Its own types, and RuntimeError: what the binding's C++ throws without a type (a device that fails, for one).
_ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(
        value
        for value in vars(ort_state).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ),
)
_ORT_TYPES = {"tensor(uint8)": "UINT8", "tensor(int64)": "INT64", "tensor(float)": "FP32"}
# What fits several branches on a small GPU (see triton/models: the same values).
_CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
_TENSORRT = "TensorrtExecutionProvider"


@contextmanager
def translated_errors(name: str) -> Iterator[None]:
    """ONNX Runtime's exceptions as ours."""
    try:
        yield
    except _ORT_ERRORS as error:
        raise _translated(name, error) from error


def _translated(name: str, error: Exception) -> GatewayError:
    kind = InsufficientGpuMemory if is_out_of_memory(str(error)) else InferenceFailed
    return kind(f"{name}: {error}")


class ContractError(Exception):
    """A model isn't what the catalogue says."""


@dataclass(frozen=True, slots=True)
class Graph:
    """One loaded ONNX model and where it stands in its branch: graph tensor name -> branch tensor name.

    `digest` is that of the files that were loaded.
    """

    name: str
    digest: str
    session: ort.InferenceSession
    spec: ModelSpec
    weights: Weights
    input_map: Mapping[str, str]
    output_map: Mapping[str, str]


class EmbeddedLease:
    """Arrays bound to every graph of the branch once; a run moves no tensor."""

    transport = "inprocess"

    def __init__(self, branch: Branch, graphs: Sequence[Graph], model: ModelState) -> None:
        self.inputs = allocate(branch.inputs)
        self.outputs = allocate(branch.outputs)
        self.workspace: dict[str, Any] = {}
        self.model = model
        self.broken = False
        self._name = branch.name
        self._arrays: dict[str, NDArray[Any]] = {**self.inputs, **self.outputs}
        self._steps = [(graph.session, self._bind(graph)) for graph in graphs]

    def _bind(self, graph: Graph) -> ort.IOBinding:
        binding = graph.session.io_binding()
        for spec in graph.spec.inputs:
            binding.bind_cpu_input(spec.name, self._arrays[graph.input_map[spec.name]])
        for spec in graph.spec.outputs:
            name = graph.output_map[spec.name]
            array = self._arrays.setdefault(name, np.zeros(spec.shape, NUMPY_DTYPES[spec.datatype]))
            binding.bind_output(spec.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return binding

    def run(self, deadline: Deadline) -> None:
        for session, binding in self._steps:
            deadline.check("infer")
            try:
                session.run_with_iobinding(binding)
            except _ORT_ERRORS as error:
                raise _translated(self._name, error) from error

    def first_run(self, limit_s: float, options: ort.RunOptions) -> None:
        """Run what the arrays hold, to pay the first run's price; ended after `limit_s`, or through `options`.

        Raises:
            DeadlineExceeded, InsufficientGpuMemory, InferenceFailed.
        """
        deadline = Deadline.after(limit_s)
        timer = threading.Timer(limit_s, setattr, (options, "terminate", True))
        timer.start()
        try:
            for session, binding in self._steps:
                with translated_errors(self._name):
                    session.run_with_iobinding(binding, options)
        except InferenceFailed as error:
            if deadline.remaining() <= 0:
                raise DeadlineExceeded("infer") from error
            raise
        finally:
            timer.cancel()
        deadline.check("infer")

    def close(self) -> None:
        self._steps.clear()


def open_session(
    source: Source,
    threads: int,
    device: str,
    cache: GraphCache | None = None,
    accelerator: Accelerator | None = None,
) -> ort.InferenceSession:
    """A graph ready to run, on `cpu` or `cuda:0`. Only what runs on `cpu` is cached; only a GPU has accelerators."""
    path = source.path
    if device != "cpu":
        chosen = gpu_providers(accelerator, providers())
        return ort.InferenceSession(str(path), _options(threads), providers=chosen)
    _share_arena()
    if cache is None:
        return ort.InferenceSession(str(path), _on_cpu(threads), providers=["CPUExecutionProvider"])
    return cache.session(source, lambda: _on_cpu(threads))


def gpu_providers(accelerator: Accelerator | None, there: Collection[str]) -> list[Any]:
    """Execution providers for a GPU, with their options; TensorRT's only where this installation has it."""
    cuda = dict(_CUDA_OPTIONS)
    if accelerator is not None and accelerator.memory_limit is not None:
        cuda["gpu_mem_limit"] = str(accelerator.memory_limit)
    chosen: list[Any] = [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]
    if accelerator is not None and accelerator.name == "tensorrt" and _TENSORRT in there:
        chosen.insert(0, (_TENSORRT, _tensorrt_options(accelerator)))
    return chosen


def _tensorrt_options(accelerator: Accelerator) -> dict[str, str]:
    options = {"trt_fp16_enable": str(int(accelerator.precision == "fp16"))}
    if accelerator.workspace is not None:
        options["trt_max_workspace_size"] = str(accelerator.workspace)
    if accelerator.cache is not None:
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": accelerator.cache}
    return options


def runs_on_tensorrt(session: ort.InferenceSession) -> bool:
    """True if TensorRT runs what it can of the graph: ONNX Runtime goes on without it where it can't be loaded."""
    return _TENSORRT in session.get_providers()


@functools.cache
def _share_arena() -> None:
    """Let the sessions on the processor take what they compute with from one arena: few of them run at once."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    as_requested = {"max_mem": 0, "arena_extend_strategy": 1, "initial_chunk_size_bytes": -1}
    ort.create_and_register_allocator(
        memory, ort.OrtArenaCfg({**as_requested, "max_dead_bytes_per_chunk": -1})
    )


def _on_cpu(threads: int) -> ort.SessionOptions:
    options = _options(threads)
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Between requests the threads sleep instead of spinning on cores that others need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def specs(arguments: Sequence[ort.NodeArg]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            a.name, _ORT_TYPES.get(a.type, a.type), tuple(d if isinstance(d, int) else -1 for d in a.shape)
        )
        for a in arguments
    )


def same(model: ModelSpec, where: str, actual: Sequence[TensorSpec], expected: Sequence[TensorSpec]) -> None:
    """Compare tensors of a model with those of the catalogue.

    Raises:
        ContractError: they differ.
    """
    fault = difference(where, actual, expected, model)
    if fault is not None:
        raise ContractError(f"{model.name}: {fault}")


def providers() -> list[str]:
    """Execution providers of this installation, in ONNX Runtime's order."""
    return [str(name) for name in ort.get_available_providers()]


def device() -> str:
    """Return the device that sessions run on with this installation."""
    return "cuda:0" if "CUDAExecutionProvider" in ort.get_available_providers() else "cpu"
