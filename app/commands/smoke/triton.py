"""A Triton server as `gateway smoke` sees it: over gRPC through the engine, or over HTTP by its own protocol."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.commands.smoke.http import Http, Reply
from app.commands.smoke.inputs import tensors
from app.commands.smoke.report import Check, Need
from app.deadline import Deadline
from app.engine.base import NUMPY_DTYPES
from app.engine.triton.client import TritonClient
from app.errors import InferenceFailed, ModelNotReady
from app.main import create_engine, triton_tls
from app.pipelines.inventory import required_models
from app.probes import Arrays
from app.settings import Settings
from routing.catalogue import Branch, Catalogue, ModelSpec, TensorSpec
from routing.policy import Readiness

# Questions about the server are answered at once or not at all; a first inference may take long.
CONTROL_TIMEOUT_S = 5.0
# Triton's words for a model that nobody has asked it to load.
_NOT_LOADED = ("", "not loaded", "unloaded")
_LENGTH = "inference-header-content-length"


@dataclass(frozen=True, slots=True)
class Found:
    """The server's report on one model; `reason` says why it isn't ready.

    `required`: `/readyz` waits for it. `checklist`: its place on the READY checklist, None if it isn't on it.
    """

    name: str
    readiness: str
    reason: str | None = None
    required: bool = False
    checklist: str | None = None

    @property
    def need(self) -> Need:
        """Extra is what is READY and neither required nor on the checklist."""
        if self.required:
            return "required"
        return "extra" if self.checklist is None else "optional"

    @property
    def ready(self) -> bool:
        return self.readiness == Readiness.READY

    @property
    def absent(self) -> bool:
        """Not there or not loaded, rather than there and broken."""
        return self.readiness in (Readiness.MISSING, Readiness.WEIGHTS_MISSING) or (
            self.readiness == Readiness.UNAVAILABLE and (self.reason or "") in _NOT_LOADED
        )


@dataclass(frozen=True, slots=True)
class Models:
    """Models that are required, on the checklist or READY, required first; and names unknown to the catalogue."""

    rows: list[Found]
    foreign: list[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """One inference: how long it took, and its outputs by name."""

    ms: float
    outputs: Arrays


class Target(Protocol):
    """A server to check. Every call ends in time: it answers, or raises a GatewayError."""

    @property
    def title(self) -> str:
        """Kind and address of the target, for people."""

    def server(self) -> list[Check]:
        """Return whether the server is live and ready. Raises GatewayError if nobody answers."""

    def models(self) -> Models:
        """Return the models that the target serves."""

    def shapes(self, branch: Branch) -> Mapping[str, tuple[int, ...]]:
        """Shapes of `Answer.outputs`; -1 stands for any length."""

    def infer(self, branch: Branch, number: int) -> Answer:
        """A real inference on input 0 or 1."""

    def close(self) -> None:
        """Release everything."""


def timed_check(name: str, good: bool, started: float, detail: str) -> Check:
    """A row about the server, required; `detail` where it isn't well."""
    ms = (time.perf_counter() - started) * 1000
    return Check("server", name, "required", "ok" if good else "failed", ms, detail="" if good else detail)


@dataclass(frozen=True, slots=True)
class Asked:
    """Models asked of a Triton: the checklist of a detection variant, and the branches that must be READY."""

    catalogue: Catalogue
    variant: str
    require: Sequence[str] = ()

    def models(self, found: Mapping[str, Found]) -> Models:
        """The findings, sorted."""
        checklist, must = (
            self.catalogue.checklist(self.variant),
            required_models(self.catalogue, self.require),
        )
        known = [
            replace(
                found.get(name, Found(name, Readiness.MISSING)),
                required=name in must,
                checklist=checklist.get(name),
            )
            for name in self.catalogue.models
        ]
        return Models(
            in_order(row for row in known if row.ready or row.need != "extra"),
            sorted(name for name, row in found.items() if row.ready and name not in self.catalogue.models),
        )


def in_order(rows: Iterable[Found]) -> list[Found]:
    """Required ones first, then by the checklist, then by name."""
    places = {"required": 0, "optional": 1, None: 2}
    return sorted(rows, key=lambda row: (not row.required, places[row.checklist], row.name))


def contract_shapes(branch: Branch) -> dict[str, tuple[int, ...]]:
    return {spec.name: spec.shape for spec in branch.outputs}


class GrpcTriton:
    """Triton's gRPC service, through the engine that serves: its transport, its checks of the contract."""

    def __init__(self, settings: Settings, asked: Asked, timeout_s: float) -> None:
        self._settings = settings
        self._asked = asked
        self._timeout_s = timeout_s
        self._address = settings.triton.grpc
        self._client = TritonClient(self._address, min(timeout_s, CONTROL_TIMEOUT_S), triton_tls(settings))
        self._close = self._client.close
        self.title = f"Triton at {self._address} (gRPC)"

    def server(self) -> list[Check]:
        started = time.perf_counter()
        live, ready = self._client.health()
        name, version = self._client.server()
        self.title = f"Triton {version} ({name}) at {self._address} (gRPC)"
        return [
            timed_check("live", live, started, "the server says that it is not live"),
            timed_check("ready", ready, started, "/v2/health/ready is not green"),
        ]

    def models(self) -> Models:
        index = self._client.index()
        # The inferences of this command are the first ones themselves; nothing is to be run before them.
        self._engine = create_engine(
            self._settings.model_copy(update={"warmup": False}), self._asked.catalogue
        )
        self._close = self._close_all
        states = self._engine.ready()
        found = {name: Found(name, state.readiness, state.reason) for name, state in states.items()}
        foreign = {name: Found(name, Readiness.READY) for name, row in index.items() if row.ready}
        return self._asked.models({**foreign, **found})

    def shapes(self, branch: Branch) -> Mapping[str, tuple[int, ...]]:
        return contract_shapes(branch)

    def infer(self, branch: Branch, number: int) -> Answer:
        inputs = tensors(branch, number)
        deadline = Deadline.after(self._timeout_s)
        with self._engine.lease(branch, deadline) as lease:
            for name, array in inputs.items():
                lease.inputs[name][...] = array
            for output in lease.outputs.values():
                output[...] = 0  # so that what an earlier call left there can't pass for an answer
            started = time.perf_counter()
            lease.run(deadline)
            ms = (time.perf_counter() - started) * 1000
            self.title = self.title.replace("(gRPC)", f"(gRPC, {lease.transport.replace('_', ' ')})")
            return Answer(ms, {name: array.copy() for name, array in lease.outputs.items()})

    def close(self) -> None:
        self._close()

    def _close_all(self) -> None:
        self._engine.close()
        self._client.close()


class HttpTriton:
    """Triton's HTTP service: the KServe protocol with its extension for binary tensors."""

    def __init__(self, url: str, asked: Asked, timeout_s: float) -> None:
        self._asked = asked
        self._control = Http(url, min(timeout_s, CONTROL_TIMEOUT_S))
        self._http = Http(url, timeout_s)
        self.title = f"Triton at {self._http.url} (HTTP)"

    def server(self) -> list[Check]:
        rows = []
        for name in ("live", "ready"):
            started = time.perf_counter()
            reply = self._control.get(f"/v2/health/{name}")
            rows.append(timed_check(name, reply.ok, started, f"/v2/health/{name}: {reply.fault()}"))
        said = self._control.get("/v2").json()
        if isinstance(said, dict):
            self.title = (
                f"Triton {said.get('version', '?')} ({said.get('name', '?')}) at {self._http.url} (HTTP)"
            )
        return rows

    def models(self) -> Models:
        reply = self._control.post("/v2/repository/index", b"{}")
        rows = reply.json()
        if not reply.ok or not isinstance(rows, list):
            raise ModelNotReady(f"the repository index can't be read: {reply.fault()}")
        found: dict[str, Found] = {}
        for row in rows:
            name, ready = row["name"], row.get("state") == "READY"
            if name not in found or ready:
                found[name] = self._found(name, row) if ready else _away(name, row)
        return self._asked.models(found)

    def shapes(self, branch: Branch) -> Mapping[str, tuple[int, ...]]:
        return contract_shapes(branch)

    def infer(self, branch: Branch, number: int) -> Answer:
        head, body = binary_request(branch, tensors(branch, number))
        started = time.perf_counter()
        reply = self._http.post(f"/v2/models/{branch.name}/infer", head + body, {_LENGTH: str(len(head))})
        ms = (time.perf_counter() - started) * 1000
        if not reply.ok:
            raise InferenceFailed(reply.fault())
        return Answer(ms, binary_answer(reply))

    def close(self) -> None:
        self._control.close()
        self._http.close()

    def _found(self, name: str, row: Mapping[str, Any]) -> Found:
        """A READY model: does it keep the catalogue's contract?"""
        spec = self._asked.catalogue.models.get(name)
        fault = None if spec is None else self._contract_fault(spec)
        return Found(
            name, Readiness.CONTRACT_MISMATCH if fault else Readiness.READY, fault or row.get("reason")
        )

    def _contract_fault(self, spec: ModelSpec) -> str | None:
        said = self._control.get(f"/v2/models/{spec.name}").json() or {}
        for side, wanted in (("inputs", spec.inputs), ("outputs", spec.outputs)):
            has = {_tensor(tensor) for tensor in said.get(side, ())}
            if has != {*wanted}:
                return (
                    f"its {side} are {sorted(map(str, has))}, the catalogue says {sorted(map(str, wanted))}"
                )
        return None


def _away(name: str, row: Mapping[str, Any]) -> Found:
    loading = row.get("state") == "LOADING"
    return Found(
        name, Readiness.LOADING if loading else Readiness.UNAVAILABLE, row.get("reason") or "not loaded"
    )


def _tensor(row: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(row["name"], row["datatype"], tuple(int(side) for side in row["shape"]))


def binary_request(branch: Branch, arrays: Arrays) -> tuple[bytes, bytes]:
    """Header and tensors of an infer request whose answer is binary too."""
    inputs = [
        {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": spec.shape,
            "parameters": {"binary_data_size": spec.nbytes},
        }
        for spec in branch.inputs
    ]
    outputs = [{"name": spec.name, "parameters": {"binary_data": True}} for spec in branch.outputs]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    return head, b"".join(np.ascontiguousarray(arrays[spec.name]).tobytes() for spec in branch.inputs)


def binary_answer(reply: Reply) -> dict[str, NDArray[Any]]:
    """The tensors of a binary answer, as the server shapes them.

    Raises:
        InferenceFailed: it is no such answer.
    """
    try:
        at = int(reply.headers[_LENGTH])
        arrays = {}
        for row in json.loads(reply.body[:at])["outputs"]:
            size = int(row["parameters"]["binary_data_size"])
            flat = np.frombuffer(reply.body[at : at + size], NUMPY_DTYPES[row["datatype"]])
            arrays[row["name"]] = flat.reshape(row["shape"])
            at += size
    except (KeyError, TypeError, ValueError) as error:
        raise InferenceFailed(f"the answer can't be read: {error!r}") from error
    return arrays
