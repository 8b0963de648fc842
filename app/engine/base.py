"""The interface of engines, which run branches. One contract test suite covers every implementation and the fake."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.errors import DeadlineExceeded, GatewayError, Overloaded, by_code
from routing.catalogue import Branch, TensorSpec
from routing.memory import ModelMemory
from routing.policy import ERROR_CODES, Readiness
from routing.provenance import UNKNOWN, ModelUsed

NUMPY_DTYPES: Mapping[str, type[np.generic]] = {"UINT8": np.uint8, "INT64": np.int64, "FP32": np.float32}
Runtime = Literal["triton", "inprocess"]
NOT_THERE = (Readiness.MISSING, Readiness.WEIGHTS_MISSING)  # nobody has built it
_LOADING_S = 2.0


@dataclass(frozen=True, slots=True)
class Weights:
    """Known facts of a model's weights; `unknown` where nothing is known, never a guess."""

    digest: str = UNKNOWN
    kind: str = UNKNOWN
    precision: str = "fp32"
    engine: str = "onnx"
    source: str | None = None
    labels: tuple[str, ...] = ()
    memory: ModelMemory | None = None

    def accelerated(self, engine: str, precision: str) -> Weights:
        """Return the same, for a graph that an accelerator runs: its engine, and the lower precision of the two."""
        return replace(self, engine=engine, precision=self.precision if precision == "fp32" else precision)


@dataclass(frozen=True)
class ModelState:
    """One model as an engine sees it. `reason` says why it isn't ready, `retry_after` for how many seconds at least.

    `settling`: it is being loaded or run for the first time by this process, and will soon be READY or given up.
    `endpoint`: host and port of the server that has it, where there are several.
    """

    name: str
    readiness: Readiness
    reason: str | None = None
    version: str = "1"
    device: str = UNKNOWN
    runtime: Runtime = "triton"
    weights: Weights = field(default_factory=Weights)
    preprocess_digest: str | None = None
    retry_after: float | None = None
    settling: bool = False
    endpoint: str | None = None

    @property
    def ready(self) -> bool:
        return self.readiness is Readiness.READY

    @property
    def wait_s(self) -> float | None:
        """Seconds to wait before the next attempt; None if waiting does not help."""
        loading = self.readiness is Readiness.LOADING
        return _LOADING_S if loading and self.retry_after is None else self.retry_after

    @cached_property
    def weights_key(self) -> tuple[str | None, ...]:
        """Return what two servers must have in common to work on one answer; unknown weights are like no other's."""
        weights = self.weights
        digests = weights.digest, self.preprocess_digest
        own = self.endpoint if UNKNOWN in digests else None
        return self.version, *digests, weights.precision, weights.engine, own

    @cached_property
    def derived(self) -> dict[int, tuple[object, ...]]:
        """Objects derived from this state and another object: by the `id` of that, which stands beside them."""
        return {}

    @cached_property
    def used(self) -> ModelUsed:
        """The entry of `models_used[]`."""
        return ModelUsed(
            model_name=self.name,
            model_version=self.version,
            weights_digest=self.weights.digest,
            weights=self.weights.kind,
            runtime=self.runtime,
            engine=self.weights.engine,
            precision=self.weights.precision,
            device=self.device,
            preprocess_digest=self.preprocess_digest,
        )


class Lease(Protocol):
    """Exclusive, pre-allocated, reused tensors of one branch; valid inside the `with` that gave it."""

    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]:
        """Views to write into, by tensor name."""

    @property
    def outputs(self) -> Mapping[str, NDArray[Any]]:
        """Views to read from after `run`; they end with the lease."""

    @property
    def workspace(self) -> dict[str, Any]:
        """Objects that a pipeline keeps between calls because they belong to these tensors (pads, views)."""

    @property
    def model(self) -> ModelState:
        """The model that serves this lease."""

    @property
    def transport(self) -> str:
        """`shared_memory`, `bytes` or `inprocess`."""

    def run(self, deadline: Deadline) -> None:
        """Inputs to outputs.

        Raises:
            DeadlineExceeded, TritonUnavailable, ModelNotReady, InsufficientGpuMemory, Overloaded, InferenceFailed.
        """


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """Leases of one branch: how many there may be, how many are out, how many requests wait for one."""

    size: int
    in_use: int
    waiting: int


@dataclass(frozen=True, slots=True)
class EndpointUsage:
    """One server: its connection, its transport (None: not known yet), and the leases that are out or awaited.

    `moved`: runs that it didn't answer, and that were made again at another one, since the start.
    """

    connected: bool
    transport: str | None
    in_flight: int
    moved: int


@dataclass(frozen=True, slots=True)
class EngineUsage:
    """State and counters of an engine; `connected` is None for engines without a server.

    `out_of_memory`: runs that failed for want of device memory, by branch; `quarantined`: branches that are out because
    of that; `recovered`: attempts to bring them back, by branch and outcome. `retries`: inferences sent again, by
    reason; `retries_refused`: those that weren't because the budget was spent. `breaker_openings`: by reason (see
    `Breaker`). `endpoints`: by host and port.
    """

    pools: Mapping[str, PoolUsage] = field(default_factory=dict)
    connected: bool | None = None
    reconnects: int = 0
    out_of_memory: Mapping[str, int] = field(default_factory=dict)
    quarantined: frozenset[str] = frozenset()
    recovered: Mapping[tuple[str, str], int] = field(default_factory=dict)
    retries: Mapping[str, int] = field(default_factory=dict)
    retries_refused: Mapping[str, int] = field(default_factory=dict)
    breaker_open: bool | None = None
    breaker_openings: Mapping[str, int] = field(default_factory=dict)
    endpoints: Mapping[str, EndpointUsage] = field(default_factory=dict)


class Engine(Protocol):
    """An engine runs branches. Safe to use from many threads."""

    @property
    def name(self) -> str:
        """`triton` or `embedded`."""

    @property
    def transport(self) -> str | None:
        """Return the transport of tensors: `shared_memory`, `bytes` or `inprocess`; None if not known yet. Never
        blocks.
        """

    def lease(self, branch: Branch, deadline: Deadline) -> AbstractContextManager[Lease]:
        """Wait for a free set of tensors of `branch`.

        Raises:
            Overloaded: too many wait already.
            DeadlineExceeded: none came free in time (stage `queue`).
            ModelNotFound, ModelNotReady, WeightsMissing, TritonUnavailable, InsufficientGpuMemory: it can't serve.
        """

    def ready(self) -> Mapping[str, ModelState]:
        """State of every model of the catalogue, by name: another mapping once any has changed; never blocks."""

    def serving(self, name: str) -> ModelState:
        """State of the model that would serve the current answer (see `app.context.pins`); never blocks."""

    def endpoints(self) -> Mapping[str, Mapping[str, ModelState]]:
        """States by model, by host and port of the server; empty where there aren't several."""

    def usage(self) -> EngineUsage:
        """Return leases by branch, and the state of the server; never blocks."""

    def close(self) -> None:
        """Release everything; a second call does nothing."""

    def abandon(self) -> None:
        """Release what would outlive this process, in about a second, without waiting for running inferences."""


class Poolable(Protocol):
    """An item that a pool hands out. A `broken` one is not used again."""

    broken: bool

    def close(self) -> None: ...


P = TypeVar("P", bound=Poolable)
# Weight of the newest service time in the moving mean that Retry-After is computed from.
_NEWEST = 0.2


class _Waiter(Generic[P]):
    """One thread in the queue: woken with an item, or with None as the permission to make one."""

    __slots__ = ("event", "item")

    def __init__(self) -> None:
        self.event = threading.Event()
        self.item: P | None = None


class LeasePool(Generic[P]):
    """At most `size` items, made when first needed, handed out first come, first served.

    The pool's size is the concurrency limit, so this is where overload shows: with `max_waiting` threads in the
    queue the next one is refused at once.
    """

    def __init__(self, make: Callable[[], P], size: int, max_waiting: int) -> None:
        self._make = make
        self._size = size
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._free: list[P] = []
        self._waiting: deque[_Waiter[P]] = deque()
        self._made = 0
        self._service_s = 0.05
        self._closed = False

    @contextmanager
    def lease(self, deadline: Deadline) -> Iterator[P]:
        """`acquire`, and `release` in the end."""
        item = self.acquire(deadline)
        started = time.monotonic()
        try:
            yield item
        finally:
            self.release(item, time.monotonic() - started)

    def usage(self) -> PoolUsage:
        """Return the current usage."""
        with self._lock:
            return PoolUsage(self._size, self._made - len(self._free), len(self._waiting))

    def close(self) -> None:
        """Close the free items now, and the leased ones when they are returned."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for item in free:
            item.close()

    def acquire(self, deadline: Deadline) -> P:
        """Take an item, which the caller releases.

        Raises:
            Overloaded, DeadlineExceeded: see `Engine.lease`.
        """
        deadline.check("queue")
        with self._lock:
            while self._free:
                item = self._free.pop()
                if not item.broken:
                    return item
                self._made -= 1
                item.close()
            if self._made < self._size:
                self._made += 1
                waiter = None
            elif len(self._waiting) >= self._max_waiting:
                raise Overloaded(
                    f"{len(self._waiting)} requests wait for {self._size} leases",
                    retry_after=(len(self._waiting) + 1) * self._service_s / self._size,
                )
            else:
                waiter = _Waiter[P]()
                self._waiting.append(waiter)
        if waiter is not None:
            self._wait(waiter, deadline)
            if waiter.item is not None:
                return waiter.item
        return self._make_one()

    def _wait(self, waiter: _Waiter[P], deadline: Deadline) -> None:
        if waiter.event.wait(deadline.remaining()):
            return
        with self._lock:
            if not waiter.event.is_set():
                self._waiting.remove(waiter)
                raise DeadlineExceeded("queue")

    def _make_one(self) -> P:
        """Make an item on the permission that `_made` already counts."""
        try:
            return self._make()
        except BaseException:
            self._pass_on(None)
            raise

    def release(self, item: P, held_s: float) -> None:
        """Return an item after so many seconds."""
        with self._lock:
            self._service_s += _NEWEST * (held_s - self._service_s)
            dead = item.broken or self._closed
            if not dead and not self._waiting:
                self._free.append(item)
                return
        if dead:
            item.close()
        self._pass_on(None if dead else item)

    def _pass_on(self, item: P | None) -> None:
        """Give an item, or the permission to make one, to the first in the queue."""
        with self._lock:
            if self._waiting:
                waiter = self._waiting.popleft()
                waiter.item = item
                waiter.event.set()
            elif item is not None:
                self._free.append(item)
            else:
                self._made -= 1


def not_served(state: ModelState) -> GatewayError:
    """The error of a lease on a branch that isn't ready."""
    code, words = ERROR_CODES[state.readiness]
    return by_code(code)(f"{state.name}: {state.reason or words}", retry_after=state.wait_s)


def allocate(specs: tuple[TensorSpec, ...]) -> dict[str, NDArray[Any]]:
    """Zeroed arrays of the contract's dtypes and shapes, by name."""
    return {spec.name: np.zeros(spec.shape, dtype=NUMPY_DTYPES[spec.datatype]) for spec in specs}


def is_out_of_memory(message: str) -> bool:
    """Return whether a backend's error text (of ONNX Runtime or CUDA) means that device memory ran out."""
    lowered = message.lower()
    return any(words in lowered for words in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = (
    "failed to allocate memory for requested buffer",  # ONNX Runtime, BFCArena
    "out of memory",  # cudaErrorMemoryAllocation: "CUDA failure 2: out of memory"
    "cuda_error_out_of_memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
