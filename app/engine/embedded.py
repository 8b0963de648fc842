"""ONNX Runtime in this process, over the same repository that Triton serves: ensembles, graphs and all.

The models are loaded by one background thread, small ones first; `ready` tells how far it is.
"""

from __future__ import annotations

import fnmatch
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from app.engine import model_config
from app.engine.base import (
    NUMPY_DTYPES,
    Deadline,
    EngineUsage,
    Lease,
    LeasePool,
    ModelState,
    allocate,
    is_out_of_memory,
    not_served,
)
from app.engine.weights import WeightsBook
from app.errors import GatewayError, InferenceFailed, InsufficientGpuMemory
from routing.catalogue import Branch, Catalogue, ModelSpec, TensorSpec
from routing.policy import Readiness

_log = logging.getLogger(__name__)

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


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """How many leases a branch has, threads of one inference (0: all cores), and which models are loaded.

    `models` are shell patterns of branch names; `max_waiting` requests may queue for a branch.
    """

    leases: int = 2
    max_waiting: int = 64
    threads: int = 0
    models: tuple[str, ...] = ("*",)


@contextmanager
def translated_errors(name: str) -> Iterator[None]:
    """ONNX Runtime's exceptions as ours."""
    try:
        yield
    except _ORT_ERRORS as error:
        if is_out_of_memory(str(error)):
            raise InsufficientGpuMemory(f"{name}: {error}") from error
        raise InferenceFailed(f"{name}: {error}") from error


class _ContractError(Exception):
    """A model isn't what the catalogue says."""


@dataclass(frozen=True, slots=True)
class _Graph:
    """One loaded ONNX model and where it stands in its branch: graph tensor name -> branch tensor name."""

    name: str
    session: ort.InferenceSession
    spec: ModelSpec
    input_map: Mapping[str, str]
    output_map: Mapping[str, str]


class EmbeddedLease:
    """Arrays bound to every graph of the branch once; a run moves no tensor."""

    transport = "inprocess"

    def __init__(self, branch: Branch, graphs: Sequence[_Graph], model: ModelState) -> None:
        self.inputs = allocate(branch.inputs)
        self.outputs = allocate(branch.outputs)
        self.workspace: dict[str, Any] = {}
        self.model = model
        self.broken = False
        self._name = branch.name
        self._arrays: dict[str, NDArray[Any]] = {**self.inputs, **self.outputs}
        self._steps = [(graph.session, self._bind(graph)) for graph in graphs]

    def _bind(self, graph: _Graph) -> ort.IOBinding:
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
            with translated_errors(self._name):
                session.run_with_iobinding(binding)

    def close(self) -> None:
        self._steps.clear()


class EmbeddedEngine:
    """See the module."""

    name = "embedded"

    def __init__(
        self,
        catalogue: Catalogue,
        repository: Path,
        book: WeightsBook,
        options: EmbeddedOptions | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._repository = repository
        self._book = book
        self._options = options or EmbeddedOptions()
        self._device = "cuda:0" if "CUDAExecutionProvider" in ort.get_available_providers() else "cpu"
        self._states: Mapping[str, ModelState] = {
            name: self._state(name, *self._found(name)) for name in catalogue.models
        }
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._pools: dict[str, LeasePool[EmbeddedLease]] = {}
        self._closing = threading.Event()
        self.loaded = threading.Event()
        self._loader = threading.Thread(target=self._load_all, name="embedded-loader", daemon=True)
        self._loader.start()

    def ready(self) -> Mapping[str, ModelState]:
        return self._states

    def usage(self) -> EngineUsage:
        return EngineUsage({name: pool.usage() for name, pool in self._pools.copy().items()})

    def lease(self, branch: Branch, deadline: Deadline) -> AbstractContextManager[Lease]:
        pool = self._pools.get(branch.name)
        if pool is None:
            raise not_served(self._states[branch.name])
        return pool.lease(deadline)

    def close(self) -> None:
        """Ends loading after the model at hand; sessions go with their last lease."""
        self._closing.set()
        self._loader.join()
        gone = "the engine is closed"
        for state in self._states.values():
            self._set(replace(state, readiness=Readiness.UNAVAILABLE, reason=gone))
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        self._sessions.clear()

    def _found(self, name: str) -> tuple[Readiness, str | None]:
        folder = self._repository / name
        if not (folder / "config.pbtxt").is_file():
            return Readiness.MISSING, f"no {name}/config.pbtxt in the repository"
        if self._catalogue.models[name].kind != "ensemble" and not (folder / "1" / "model.onnx").is_file():
            return Readiness.WEIGHTS_MISSING, f"no {name}/1/model.onnx in the repository"
        return Readiness.LOADING, None

    def _state(self, name: str, readiness: Readiness, reason: str | None = None) -> ModelState:
        return ModelState(name, readiness, reason, "1", self._device, "inprocess", self._book.lookup(name))

    def _load_all(self) -> None:
        branches = sorted(self._catalogue.branches.values(), key=lambda b: (b.size or 0, b.name))
        for branch in branches:
            if self._closing.is_set():
                break
            state = self._load(branch)
            if not state.ready:
                self._set(*self._given_up(branch, state))
            self._set(state)
        self.loaded.set()

    def _given_up(self, branch: Branch, state: ModelState) -> Iterator[ModelState]:
        """The parts of a branch that can't be served and that nobody will load now."""
        for part in (self._states[model.name] for model in branch.models[1:]):
            if part.readiness is Readiness.LOADING:
                reason = f"not loaded, because {branch.name} isn't: {state.reason}"
                yield replace(part, readiness=Readiness.UNAVAILABLE, reason=reason)

    def _set(self, *states: ModelState) -> None:
        self._states = {**self._states, **{state.name: state for state in states}}

    def _load(self, branch: Branch) -> ModelState:
        """Load one branch; what is wrong with it ends in its state, never in the loader's death."""
        if not any(fnmatch.fnmatchcase(branch.name, pattern) for pattern in self._options.models):
            return self._state(branch.name, Readiness.UNAVAILABLE, "not among the models that are loaded")
        for model in branch.models:
            if self._states[model.name].readiness in (Readiness.MISSING, Readiness.WEIGHTS_MISSING):
                missing = self._states[model.name]
                return self._state(branch.name, missing.readiness, missing.reason)
        try:
            graphs = self._graphs(branch)
        except _ContractError as error:
            return self._state(branch.name, Readiness.CONTRACT_MISMATCH, str(error))
        except InsufficientGpuMemory as error:
            return self._state(branch.name, Readiness.OUT_OF_MEMORY, error.detail)
        except (GatewayError, ValueError, OSError) as error:  # ConfigError is a ValueError, as is no UTF-8
            return self._state(branch.name, Readiness.UNAVAILABLE, str(error))
        return self._serve(branch, graphs)

    def _serve(self, branch: Branch, graphs: Sequence[_Graph]) -> ModelState:
        preprocess = branch.preprocess_model
        state = replace(
            self._states[branch.name],
            readiness=Readiness.READY,
            reason=None,
            weights=self._states[branch.weights_model].weights,
            preprocess_digest=self._states[preprocess].weights.digest if preprocess else None,
        )
        options = self._options
        self._pools[branch.name] = LeasePool(
            lambda: EmbeddedLease(branch, graphs, state), options.leases, options.max_waiting
        )
        _log.info("loaded %s (%s, weights: %s)", branch.name, self._device, state.weights.kind)
        return state

    def _graphs(self, branch: Branch) -> list[_Graph]:
        """The branch's models in the order in which a frame meets them, as its config.pbtxt says."""
        config = self._config(branch.models[0])
        if not config.steps:
            identity = {tensor.name: tensor.name for tensor in (*config.inputs, *config.outputs)}
            return [self._graph(branch.models[0], identity, identity)]
        models = {model.name: model for model in branch.models}
        graphs = []
        for step in config.steps:
            if step.model_name not in models:
                raise _ContractError(f"{branch.name}: step {step.model_name} is not in the catalogue")
            self._config(models[step.model_name])
            graphs.append(self._graph(models[step.model_name], step.input_map, step.output_map))
        return graphs

    def _config(self, model: ModelSpec) -> model_config.ModelConfig:
        text = (self._repository / model.name / "config.pbtxt").read_text(encoding="utf-8")
        config = model_config.read(text)
        _same(model.name, "config.pbtxt", config.inputs, model.inputs)
        _same(model.name, "config.pbtxt", config.outputs, model.outputs)
        return config

    def _graph(self, model: ModelSpec, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> _Graph:
        if model.name not in self._sessions:
            folder = self._repository / model.name / "1"
            weights = self._book.verified(folder, model.name)
            with translated_errors(model.name):
                session = self._session(folder / "model.onnx")
            _same(model.name, "model.onnx", _specs(session.get_inputs()), model.inputs)
            _same(model.name, "model.onnx", _specs(session.get_outputs()), model.outputs)
            self._sessions[model.name] = session
            # A branch is READY when it has its pool (`_serve`), not before.
            branch = model.name in self._catalogue.branches
            state = self._state(model.name, Readiness.LOADING if branch else Readiness.READY)
            self._set(replace(state, weights=weights))
        return _Graph(model.name, self._sessions[model.name], model, inputs, outputs)

    def _session(self, path: Path) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._options.threads
        options.log_severity_level = 3
        # Between requests the threads sleep instead of spinning on cores that others need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[Any] = ["CPUExecutionProvider"]
        if self._device != "cpu":
            providers.insert(0, ("CUDAExecutionProvider", _CUDA_OPTIONS))
        return ort.InferenceSession(str(path), options, providers=providers)


def _specs(arguments: Sequence[ort.NodeArg]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            a.name, _ORT_TYPES.get(a.type, a.type), tuple(d if isinstance(d, int) else -1 for d in a.shape)
        )
        for a in arguments
    )


def _same(model: str, where: str, actual: Sequence[TensorSpec], expected: Sequence[TensorSpec]) -> None:
    if {t.name: t for t in actual} != {t.name: t for t in expected}:
        found = "; ".join(f"{t.name} {t.datatype} {list(t.shape)}" for t in actual)
        wanted = "; ".join(f"{t.name} {t.datatype} {list(t.shape)}" for t in expected)
        raise _ContractError(f"{model}: {where} has {found}; the catalogue says {wanted}")
