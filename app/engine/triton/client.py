"""The gRPC calls that the Triton engine makes. The only module that imports gRPC."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from app.context import trace_headers
from app.engine.base import is_out_of_memory
from app.engine.triton.model_checks import IndexRow, ServedConfig
from app.engine.triton.model_control import NoModelControl
from app.engine.triton.shared_memory import Region
from app.errors import (
    DeadlineExceeded,
    GatewayError,
    InferenceFailed,
    InsufficientGpuMemory,
    ModelNotReady,
    Overloaded,
    TritonUnavailable,
)
from routing.catalogue import TensorSpec
from routing.provenance import UNKNOWN

# tritonclient sets the same message sizes; passing options of one's own drops them, and 4 MB would return.
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # http_proxy variables break localhost
    ("grpc.use_local_subchannel_pool", 1),  # one connection an engine, not one a process
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),  # back within a second of Triton's return
    # In spite of its name: the time for a connection, TLS included. A distant server needs several round trips.
    ("grpc.min_reconnect_backoff_ms", 2000),
)
# Triton's own words (2.51): these come with UNAVAILABLE or INVALID_ARGUMENT although the server is well.
_NOT_READY_WORDS = ("ready state", "unknown model", "no available versions", "is not found")
_REGION_WORDS = ("shared memory region", "shared-memory region")
# These two come with UNAVAILABLE, from a model's queue policy.
_LATE_WORDS = "request timeout expired"
# There is no connection, or a server that is about to leave has answered.
_UNBROKEN_WORDS = ("failed to connect", "server not ready")
_FULL_WORDS = "maximum queue size"
# Of a model that is being reloaded: the second where, as in our requests, no version is named.
_RELOAD_WORDS = ("ready state", "no available versions")
_NO_CONTROL_WORDS = "explicit model load / unload is not allowed"


class RegionLost(Exception):
    """Triton doesn't know a region: it has restarted, or can't map it. Never leaves `app.engine`."""


@contextmanager
def translated_errors(what: str) -> Iterator[None]:
    """Translate gRPC's exceptions into the project's errors.

    Raises:
        RegionLost, DeadlineExceeded, TritonUnavailable, ModelNotReady, InsufficientGpuMemory, Overloaded,
        InferenceFailed.
    """
    try:
        yield
    except (grpc.RpcError, ValueError) as error:
        raise _translated(what, error) from error


def _translated(what: str, error: grpc.RpcError | ValueError) -> Exception:
    if isinstance(error, ValueError):  # "Cannot invoke RPC on closed channel!"
        return TritonUnavailable(f"{what}: {error}")
    return _translate(what, error.code(), error.details() or "")


@contextmanager
def _controlled(what: str) -> Iterator[None]:
    """`translated_errors`, and NoModelControl where Triton allows no explicit control."""
    with translated_errors(what):
        try:
            yield
        except grpc.RpcError as error:
            if _NO_CONTROL_WORDS in (error.details() or "").lower():
                raise NoModelControl(error.details()) from error
            raise


def _translate(what: str, code: grpc.StatusCode, details: str) -> Exception:
    """Triton's words come before gRPC's codes: one code stands for several different failures."""
    text = f"{what}: {details}"
    lowered = details.lower()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED or _LATE_WORDS in lowered:
        return DeadlineExceeded("infer")
    if _FULL_WORDS in lowered:
        return Overloaded(text, retry_after=1)
    if any(words in lowered for words in _REGION_WORDS):
        return RegionLost(text)
    if is_out_of_memory(details):
        return InsufficientGpuMemory(text)
    if any(words in lowered for words in _NOT_READY_WORDS):
        return ModelNotReady(text, retry_after=1)
    return _BY_STATUS.get(code, InferenceFailed)(text, retry_after=1)


_BY_STATUS: Mapping[grpc.StatusCode, type[GatewayError]] = {
    grpc.StatusCode.NOT_FOUND: ModelNotReady,
    grpc.StatusCode.UNAVAILABLE: TritonUnavailable,
    grpc.StatusCode.CANCELLED: TritonUnavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
}


def retry_reason(error: GatewayError) -> str | None:
    """Return the reason to retry a failed call, in one word, or None if a retry does not help.

    Worth it: the connection broke or there was none (`unavailable`), the server is shutting down and another may come
    (`shutdown`), the model is being reloaded (`not_ready`). Nothing that says that the server or the caller has no
    time or no room; nor a call on a channel that we have closed ourselves.
    """
    cause = error.__cause__
    if not isinstance(cause, grpc.RpcError):
        return None
    if isinstance(error, TritonUnavailable):
        return "shutdown" if cause.code() is grpc.StatusCode.CANCELLED else "unavailable"
    if isinstance(error, ModelNotReady) and any(word in error.detail.lower() for word in _RELOAD_WORDS):
        return "not_ready"
    return None


def connection_broke(error: Exception) -> bool:
    """Return True if a connection that there was broke under a call; the server itself may be well."""
    return (
        isinstance(error, TritonUnavailable)
        and retry_reason(error) == "unavailable"
        and not any(words in error.detail.lower() for words in _UNBROKEN_WORDS)
    )


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: who signed the server's certificate (None: the usual authorities); our own, where it asks for one."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        ca, key, cert = (path and path.read_bytes() for path in (self.ca, self.key, self.cert))
        return grpc.ssl_channel_credentials(ca, key, cert)


def _trace_metadata() -> tuple[tuple[str, str], ...] | None:
    """Return the metadata that tells Triton the trace of an inference (W3C Trace Context), or None without a trace."""
    headers = trace_headers()
    return None if headers is None else tuple(headers.items())


def _rank(row: IndexRow) -> tuple[bool, int]:
    return row.ready, int(row.version) if row.version.isdecimal() else 0


# Backends of Triton, as provenance names engines.
_ENGINES = {"onnxruntime": "onnx", "tensorrt": "tensorrt", "pytorch": "torch"}
_ACCELERATORS = ("tensorrt", "openvino")  # those that run the graph in place of ONNX Runtime's own kernels


def _device(groups: Iterable[Any]) -> str:
    """`cuda:<n>` or `cpu`, from the instance groups of a model."""
    for group in groups:
        kind = type(group).Kind.Name(group.kind)
        if kind == "KIND_GPU":
            return f"cuda:{group.gpus[0] if group.gpus else 0}"
        if kind == "KIND_CPU":
            return "cpu"
    return UNKNOWN


def accelerator_of(accelerators: Any, device: str) -> tuple[str, str] | None:
    """The accelerator that runs a model on its device, and its precision; None where ONNX Runtime runs it alone."""
    on_gpu = device.startswith("cuda")
    rows = accelerators.gpu_execution_accelerator if on_gpu else accelerators.cpu_execution_accelerator
    for row in rows:
        if row.name in _ACCELERATORS:
            return row.name, row.parameters.get("precision_mode", "FP32").lower()
    return None


def _authority_options(name: str | None) -> tuple[tuple[str, str], ...]:
    """Channel options for an address that was found by a name: certificates and proxies know the name."""
    if name is None:
        return ()
    return ("grpc.default_authority", name), ("grpc.ssl_target_name_override", name)


class TritonClient:
    """The gRPC calls that the engine makes; every failure is one of `translated_errors`.

    Args:
        url: `host:port`.
        control_timeout_s: of calls that aren't inferences, in seconds.
        tls: None: the connection is plain.
        changed: called when the connection has changed.
        authority: name of the server, where `url` is only its address.
    """

    def __init__(
        self,
        url: str,
        control_timeout_s: float,
        tls: Tls | None = None,
        changed: Callable[[], None] | None = None,
        authority: str | None = None,
    ) -> None:
        self._url = url
        self._options = (*_CHANNEL_OPTIONS, *_authority_options(authority))
        self._changed = changed
        self.connections = 0  # how often a connection has ended
        self.doubts = 0  # that, and every call that ended as if another server were there
        self._credentials = None if tls is None else tls.credentials()
        self._timeout = control_timeout_s
        self._owed: deque[str] = deque()  # threads add while the watcher settles
        self._connect()

    def _connect(self) -> None:
        self._channel = (
            grpc.secure_channel(self._url, self._credentials, options=self._options)
            if self._credentials is not None
            else grpc.insecure_channel(self._url, options=self._options)
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        if self._changed is not None:
            self._channel.subscribe(functools.partial(self._connectivity, [False]))
        # No (de)serialisers: what goes over the wire is made once a lease, and not always read.
        self._infer = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def _connectivity(self, connected: list[bool], state: grpc.ChannelConnectivity) -> None:
        """A channel connects again by itself, to the server that the address leads to then."""
        ready = state is grpc.ChannelConnectivity.READY
        if connected[0] and not ready:
            self.connections += 1
            self.doubts += 1
        elif ready and self.connections and self._changed is not None:
            self._changed()
        connected[0] = ready

    def doubt(self) -> None:
        """Note that the next call may reach another server than the last one."""
        self.doubts += 1
        if self._changed is not None:
            self._changed()

    def reconnect(self) -> None:
        """End every call that waits for an answer (TritonUnavailable), and go on over a new connection."""
        old = self._channel
        self.connections += 1
        self.doubts += 1
        self._connect()
        old.close()

    def infer(self, model: str, request: bytes, timeout_s: float) -> bytes:
        try:
            response: bytes = self._infer(request, timeout=timeout_s, metadata=_trace_metadata())
        except (grpc.RpcError, ValueError) as caught:
            error = _translated(model, caught)
            if isinstance(error, TritonUnavailable):
                self.doubts += 1
            elif isinstance(error, RegionLost):
                self.doubt()
            raise error from caught
        return response

    def health(self) -> tuple[bool, bool]:
        """Return whether the server says that it is live, and that it is ready."""
        with translated_errors("health"):
            live = self._stub.ServerLive(pb.ServerLiveRequest(), timeout=self._timeout).live
            return live, self._stub.ServerReady(pb.ServerReadyRequest(), timeout=self._timeout).ready

    def server(self, timeout_s: float | None = None) -> tuple[str, str]:
        """The server's name and version."""
        with translated_errors("server metadata"):
            reply = self._stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=timeout_s or self._timeout)
        return reply.name, reply.version

    def index(self, timeout_s: float | None = None) -> dict[str, IndexRow]:
        """Every model in the repository, by name; of several versions that are READY the newest, which serves."""
        with translated_errors("repository index"):
            reply = self._stub.RepositoryIndex(
                pb.RepositoryIndexRequest(), timeout=timeout_s or self._timeout
            )
        index: dict[str, IndexRow] = {}
        for row in reply.models:
            reason = row.reason or ("loading" if row.state == "LOADING" else "")
            fresh = IndexRow(row.state == "READY", row.version or "1", reason)
            if row.name not in index or _rank(fresh) > _rank(index[row.name]):
                index[row.name] = fresh
        return index

    def model_states(self) -> dict[str, str]:
        """Triton's word for every model it knows something of; of several versions, that which is on its way counts."""
        with translated_errors("repository index"):
            reply = self._stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=self._timeout)
        states: dict[str, str] = {}
        for row in reply.models:
            if states.get(row.name) not in ("LOADING", "UNLOADING"):
                states[row.name] = row.state
        return states

    def load(self, model: str, timeout_s: float) -> None:
        """Reload a model, an ensemble with its parts; returns once it is loaded.

        Raises:
            NoModelControl: Triton lets nobody do this.
        """
        request = pb.RepositoryModelLoadRequest(model_name=model)
        with _controlled(f"loading {model}"):
            self._stub.RepositoryModelLoad(request, timeout=timeout_s)

    def unload(self, model: str) -> None:
        """Begin to unload a model: what runs on it is finished, what comes is refused. Parts of an ensemble stay.

        Raises:
            NoModelControl: Triton lets nobody do this.
        """
        request = pb.RepositoryModelUnloadRequest(model_name=model)
        with _controlled(f"unloading {model}"):
            self._stub.RepositoryModelUnload(request, timeout=self._timeout)

    def counters(self, timeout_s: float | None = None) -> dict[str, tuple[int, int]]:
        """Return per loaded model, over its versions: inferences since it was loaded, and the time of the last one
        (ms)."""
        with translated_errors("statistics"):
            reply = self._stub.ModelStatistics(
                pb.ModelStatisticsRequest(), timeout=timeout_s or self._timeout
            )
        counters: dict[str, tuple[int, int]] = {}
        for row in reply.model_stats:
            count, last = counters.get(row.name, (0, 0))
            runs = max(
                row.inference_count, row.inference_stats.success.count
            )  # the latter with cached answers
            counters[row.name] = (count + runs, max(last, row.last_inference))
        return counters

    def tensors(self, model: str) -> tuple[list[TensorSpec], list[TensorSpec]]:
        """Inputs and outputs of a READY model, as the server has them."""
        with translated_errors(model):
            reply = self._stub.ModelMetadata(pb.ModelMetadataRequest(name=model), timeout=self._timeout)
        inputs, outputs = (
            [TensorSpec(t.name, t.datatype, tuple(t.shape)) for t in side]
            for side in (reply.inputs, reply.outputs)
        )
        return inputs, outputs

    def config(self, model: str) -> ServedConfig:
        """The configuration that Triton settled on."""
        with translated_errors(model):
            reply = self._stub.ModelConfig(pb.ModelConfigRequest(name=model), timeout=self._timeout)
        steps = tuple(
            (step.model_name, None if step.model_version < 0 else str(step.model_version))
            for step in reply.config.ensemble_scheduling.step
        )
        device = _device(reply.config.instance_group)
        engine = _ENGINES.get(reply.config.backend, reply.config.backend or UNKNOWN)
        accelerator = accelerator_of(reply.config.optimization.execution_accelerators, device)
        return ServedConfig(device, steps, engine, accelerator)

    def register(self, region: Region, timeout_s: float | None = None) -> None:
        request = pb.SystemSharedMemoryRegisterRequest(
            name=region.name, key=region.key, offset=0, byte_size=region.nbytes
        )
        with translated_errors("shared memory"):
            self._stub.SystemSharedMemoryRegister(
                request, timeout=min(timeout_s or self._timeout, self._timeout)
            )

    def unregister(self, name: str, timeout_s: float | None = None) -> None:
        request = pb.SystemSharedMemoryUnregisterRequest(name=name)
        with translated_errors("shared memory"):
            self._stub.SystemSharedMemoryUnregister(request, timeout=timeout_s or self._timeout)

    def regions(self) -> list[str]:
        """Names of all regions that the server has mapped, whoever registered them."""
        with translated_errors("shared memory"):
            reply = self._stub.SystemSharedMemoryStatus(
                pb.SystemSharedMemoryStatusRequest(), timeout=self._timeout
            )
        return [*reply.regions]

    def forget(self, name: str) -> None:
        """Unregister a region now; what Triton refuses, because a run still uses it, is tried again by `settle`."""
        try:
            self.unregister(name)
        except (GatewayError, RegionLost):
            self._owed.append(name)

    def forget_later(self, name: str) -> None:
        """Queue the region for `settle`, because the caller has no time left."""
        self._owed.append(name)

    def settle(self) -> None:
        """Unregister what is still owed; a server that has restarted agrees to names that it doesn't know."""
        for _ in range(len(self._owed)):
            self.forget(self._owed.popleft())

    def close(self) -> None:
        self._channel.close()
