"""Targets: an engine (Triton by bytes or shared memory, embedded), or a server over HTTP."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from app.commands.smoke.http import Http, Reply, multipart
from app.commands.smoke.inputs import picture, tensors
from app.commands.smoke.triton import Asked, HttpTriton
from app.deadline import Deadline
from app.engine.base import NUMPY_DTYPES, Engine, ModelState, is_out_of_memory
from app.engine.weights import WeightsBook
from app.families import FAMILIES
from app.main import create_engine
from app.media.vocabulary import clip_merges
from app.settings import Settings
from app.vision.prompts import Tokenizer
from benchmarks.matrix.load import Caller, Refused
from routing.catalogue import Branch, Catalogue
from routing.policy import ERROR_CODES, Readiness
from routing.provenance import UNKNOWN

LOAD_SECONDS = 300
DIGEST_SECONDS = 10


@dataclass(frozen=True, slots=True)
class State:
    """A branch on one target. `code` is the error of who asks for it where it isn't ready."""

    ready: bool
    code: str = ""
    reason: str = ""
    weights: str = UNKNOWN
    digest: str = UNKNOWN
    device: str = UNKNOWN


class Target(Protocol):
    """One way to the models."""

    name: str

    def states(self) -> Mapping[str, State]:
        """Every branch of the catalogue. Raises GatewayError where nobody answers."""

    def caller(self, branch: Branch, prompts: int) -> Caller:
        """A new client; `prompts` are what one request of text holds."""

    def close(self) -> None: ...


def prompt_tokens(count: int) -> list[NDArray[np.int64]]:
    """Token ids `[77]` of `count` different prompts."""
    tokenizer = Tokenizer(clip_merges())
    return [tokenizer(f"a photo of a thing, number {number}").ids for number in range(count)]


def inputs_of(branch: Branch, prompts: int) -> list[dict[str, NDArray[Any]]]:
    """The tensors of one request: one set, or one a prompt."""
    if branch.size is not None:
        return [tensors(branch, 0)]
    return [{branch.inputs[0].name: ids[None]} for ids in prompt_tokens(prompts)]


class EngineTarget:
    """An engine as the service has it. A request: a lease, inputs filled, run, outputs there to be read.

    Prompts go one by one, as the model takes them.
    """

    def __init__(self, name: str, settings: Settings, catalogue: Catalogue, timeout_s: float) -> None:
        self.name = name
        self._catalogue = catalogue
        self._timeout_s = timeout_s
        self.engine: Engine = create_engine(settings, catalogue)
        self._wait(LOAD_SECONDS, lambda state: state.readiness is Readiness.LOADING)
        # Several polls of a Triton have to agree first.
        self._wait(DIGEST_SECONDS, lambda state: state.ready and state.weights.digest == UNKNOWN)

    def _wait(self, seconds: float, pending: Callable[[ModelState], bool]) -> None:
        """Return once no branch is pending, or after `seconds`."""
        limit = time.monotonic() + seconds
        while any(pending(self.engine.ready()[name]) for name in self._catalogue.branches):
            if time.monotonic() > limit:
                return
            time.sleep(0.05)

    def states(self) -> Mapping[str, State]:
        found = {}
        for name, state in self.engine.ready().items():
            if name in self._catalogue.branches:
                code = "" if state.ready else ERROR_CODES[state.readiness][0]
                weights = state.weights
                found[name] = State(
                    state.ready, code, state.reason or "", weights.kind, weights.digest, state.device
                )
        return found

    def caller(self, branch: Branch, prompts: int) -> Caller:
        return _EngineCaller(self.engine, branch, inputs_of(branch, prompts), self._timeout_s)

    def close(self) -> None:
        self.engine.close()


class _EngineCaller:
    def __init__(
        self, engine: Engine, branch: Branch, inputs: list[dict[str, NDArray[Any]]], timeout_s: float
    ):
        self._engine, self._branch, self._inputs, self._timeout_s = engine, branch, inputs, timeout_s

    def __call__(self) -> None:
        deadline = Deadline.after(self._timeout_s)
        for arrays in self._inputs:
            with self._engine.lease(self._branch, deadline) as lease:
                for name, array in arrays.items():
                    np.copyto(lease.inputs[name], array)
                lease.run(deadline)

    def close(self) -> None:
        """The engine isn't ours."""


class JsonTarget:
    """Triton over HTTP as the client before this project spoke to it: every tensor a list of numbers in JSON."""

    name = "triton_json"

    def __init__(self, url: str, settings: Settings, catalogue: Catalogue, timeout_s: float) -> None:
        self._url, self._catalogue, self._timeout_s = url, catalogue, timeout_s
        self._book = WeightsBook(settings.repository, settings.manifest)
        self._server = HttpTriton(url, Asked(catalogue, ""), timeout_s)

    def states(self) -> Mapping[str, State]:
        self._server.server()
        models = self._server.models()
        found = {row.name: row for row in models.rows}
        states = {}
        for name, branch in self._catalogue.branches.items():
            row, weights = found.get(name), self._book.lookup(branch.weights_model)
            readiness = Readiness(row.readiness) if row else Readiness.MISSING
            ready = readiness is Readiness.READY
            code = "" if ready else ERROR_CODES[readiness][0]
            states[name] = State(ready, code, (row and row.reason) or "", weights.kind, weights.digest)
        return states

    def caller(self, branch: Branch, prompts: int) -> Caller:
        return JsonCaller(self._url, branch, inputs_of(branch, prompts), self._timeout_s)

    def close(self) -> None:
        self._server.close()


class JsonCaller:
    """Arrays in, arrays out: writing and reading the JSON is a part of the call, as it was."""

    def __init__(
        self, url: str, branch: Branch, inputs: list[dict[str, NDArray[Any]]], timeout_s: float
    ) -> None:
        self._http = Http(url, timeout_s)
        self._branch, self._inputs = branch, inputs
        self.outputs: dict[str, NDArray[Any]] = {}

    def __call__(self) -> None:
        for arrays in self._inputs:
            reply = self._http.post(
                f"/v2/models/{self._branch.name}/infer",
                self._body(arrays),
                {"Content-Type": "application/json"},
            )
            if not reply.ok:
                raise Refused(_triton_code(reply), reply.fault())
            for row in json.loads(reply.body)["outputs"]:
                flat = np.array(row["data"], NUMPY_DTYPES[row["datatype"]])
                self.outputs[row["name"]] = flat.reshape(row["shape"])

    def _body(self, arrays: Mapping[str, NDArray[Any]]) -> bytes:
        inputs = [
            {
                "name": spec.name,
                "shape": list(spec.shape),
                "datatype": spec.datatype,
                "data": arrays[spec.name].ravel().tolist(),
            }
            for spec in self._branch.inputs
        ]
        outputs = [{"name": spec.name} for spec in self._branch.outputs]
        return json.dumps({"inputs": inputs, "outputs": outputs}).encode()

    def close(self) -> None:
        self._http.close()


def _triton_code(reply: Reply) -> str:
    fault = reply.fault()
    if is_out_of_memory(fault):
        return "insufficient_gpu_memory"
    return "model_not_ready" if reply.status in (400, 404) and "ready" in fault else "inference_failed"


class GatewayTarget:
    """The gateway's routes, whole: a JPEG of the branch's size (or prompts) in, the answer out."""

    name = "gateway"

    def __init__(self, url: str, timeout_s: float, headers: Mapping[str, str]) -> None:
        self._url, self._timeout_s, self._headers = url, timeout_s, headers
        # The gateway remembers prompts: each one is sent once in the life of this target, and hits no cache.
        self._numbers = itertools.count(time.time_ns())

    def states(self) -> Mapping[str, State]:
        http = Http(self._url, self._timeout_s, self._headers)
        reply = http.get("/v1/branches")
        http.close()
        if not reply.ok:
            said = reply.json()
            raise Refused(
                said["code"] if isinstance(said, dict) and "code" in said else "not_a_gateway", reply.fault()
            )
        rows = [row for family in reply.json()["families"] for row in family["branches"]]
        return {row["name"]: _gateway_state(row) for row in rows}

    def caller(self, branch: Branch, prompts: int) -> Caller:
        http = Http(self._url, self._timeout_s, {**self._headers, "X-Request-Timeout": str(self._timeout_s)})
        return _GatewayCaller(http, branch, prompts, self._numbers)

    def close(self) -> None:
        """Nothing is kept."""


def _gateway_state(row: Mapping[str, Any]) -> State:
    readiness = Readiness(row["readiness"])
    ready = readiness is Readiness.READY
    code = "" if ready else ERROR_CODES[readiness][0]
    return State(ready, code, row["reason"] or "", row["weights"], row["weights_digest"], row["device"])


class _GatewayCaller:
    def __init__(self, http: Http, branch: Branch, prompts: int, numbers: Iterator[int]) -> None:
        self._http, self._numbers, self._prompts = http, numbers, prompts
        self._headers: dict[str, str] = {}
        row = FAMILIES.by_name[branch.family]
        self._probe, self._path = row.probe, row.probe.path(row.route, branch)
        self._frame = None if self._probe.prompts else self._encoded(branch)

    def __call__(self) -> None:
        reply = self._http.post(self._path, self._frame or self._text(), self._headers)
        if not reply.ok:
            said = reply.json()
            code = said.get("code") if isinstance(said, dict) else None
            raise Refused(code or f"http_{reply.status}", reply.fault())

    def close(self) -> None:
        self._http.close()

    def _encoded(self, branch: Branch) -> bytes:
        frames = [
            jpeg(np.roll(picture(branch.size or 0, 0), 8 * at, axis=1)) for at in range(len(branch.inputs))
        ]
        self._headers |= self._probe.headers
        if not self._probe.parts:
            self._headers["Content-Type"] = "image/jpeg"
            return frames[0]
        parts = dict(zip(self._probe.parts, frames, strict=True))
        body, self._headers["Content-Type"] = multipart(parts)
        return body

    def _text(self) -> bytes:
        self._headers |= {"Content-Type": "application/json", **self._probe.headers}
        prompts = [f"a photo of a thing, number {next(self._numbers)}" for _ in range(self._prompts)]
        return json.dumps({"prompts": prompts}).encode()


def jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """`[H, W, 3]` uint8 RGB as JPEG of quality 95."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    return bytes(data)
