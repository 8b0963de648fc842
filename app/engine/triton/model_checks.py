"""A Triton's report on each model: contract, device, and the models that an ensemble consists of.

What goes wrong with one model is that model's state, with a reason; it is asked again after a growing pause.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from app.engine.base import ModelState, Weights, is_out_of_memory
from app.engine.contracts import difference
from app.errors import GatewayError
from routing.catalogue import Catalogue, ModelSpec, TensorSpec
from routing.policy import Readiness
from routing.provenance import UNKNOWN

_log = logging.getLogger(__name__)
_RETRY_S, _RETRY_MAX_S = 1.0, 60.0
_DEPTH = 8  # of ensembles in ensembles
Part = tuple[str, str | None]  # model, and the version that the ensemble names; None: the newest


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One model in a server's repository: if it is READY, the version that serves, and why it isn't READY."""

    ready: bool
    version: str
    reason: str


Index = Mapping[str, IndexRow]


@dataclass(frozen=True, slots=True)
class ServedConfig:
    """A model's configuration as the server has it; `steps` of an ensemble; `engine` as provenance names it.

    `accelerator`: the one that runs it, and its precision, where there is one.
    """

    device: str
    steps: tuple[Part, ...]
    engine: str = UNKNOWN
    accelerator: tuple[str, str] | None = None


class Describes(Protocol):
    """The calls about one model; errors are ours."""

    def tensors(self, model: str) -> tuple[list[TensorSpec], list[TensorSpec]]: ...

    def config(self, model: str) -> ServedConfig: ...


@dataclass(frozen=True, slots=True)
class Checked:
    """One model. `parts`: the models that an ensemble runs, ensembles among them taken apart; none: no ensemble.

    `away`: the server doesn't serve it, or a part of it, now. `accelerator`: of the part that holds the weights.
    """

    state: ModelState
    parts: tuple[Part, ...] = ()
    away: bool = False
    accelerator: tuple[str, str] | None = None


@dataclass(slots=True)
class _Trouble:
    """A model that the server can't describe: when it is asked again, on the monotonic clock."""

    reason: str
    retry_at: float
    failures: int = 1


class ModelChecks:
    """Checks of one server's models; a model is checked once until it is forgotten. One thread uses it."""

    def __init__(self, server: Describes, catalogue: Catalogue) -> None:
        self._server = server
        self._catalogue = catalogue
        self._known: dict[str, Checked] = {}
        self._troubles: dict[str, _Trouble] = {}

    def of(self, spec: ModelSpec, index: Index) -> Checked:
        """The model, its weights left out; not ready where it doesn't serve, or can't be described."""
        row = index.get(spec.name)
        if row is None:
            return self._away(spec.name, Readiness.MISSING, "not in Triton's repository index")
        if not row.ready:
            return self._away(spec.name, _not_ready(row.reason), row.reason or "not loaded")
        known = self._known.get(spec.name)
        if known is None or known.state.version != row.version:
            known = self._check(spec, row.version)
        part = next((name for name, _ in known.parts if name not in index or not index[name].ready), None)
        if known.state.ready and part is not None:
            why = (index[part].reason if part in index else "") or "not loaded"
            return self._away(spec.name, Readiness.UNAVAILABLE, f"its part {part} doesn't serve: {why}")
        return known

    def _away(self, name: str, readiness: Readiness, reason: str) -> Checked:
        """Forget a model that is not loaded; it is checked again once it is back."""
        self.forget(name)
        return Checked(ModelState(name, readiness, reason), away=True)

    def forget(self, name: str) -> None:
        """The model isn't loaded any more, or has been loaded again."""
        self._known.pop(name, None)
        self._troubles.pop(name, None)

    def forget_all(self) -> None:
        """The server is away, or another one."""
        self._known.clear()
        self._troubles.clear()

    def _check(self, spec: ModelSpec, version: str) -> Checked:
        trouble = self._troubles.get(spec.name)
        if trouble is not None and time.monotonic() < trouble.retry_at:
            return Checked(ModelState(spec.name, Readiness.UNAVAILABLE, trouble.reason, version))
        try:
            checked = self._described(spec, version)
        except GatewayError as error:
            return Checked(self._failed(spec.name, version, f"Triton can't describe it: {error.detail}"))
        self._troubles.pop(spec.name, None)
        self._known[spec.name] = checked
        return checked

    def _failed(self, name: str, version: str, reason: str) -> ModelState:
        old = self._troubles.get(name)
        if old is None or old.reason != reason:
            _log.warning("%s is not ready: %s", name, reason)
        failures = 1 if old is None else old.failures + 1
        pause = min(_RETRY_S * 2 ** min(failures - 1, 16), _RETRY_MAX_S)
        self._troubles[name] = _Trouble(reason, time.monotonic() + pause, failures)
        return ModelState(name, Readiness.UNAVAILABLE, reason, version)

    def _described(self, spec: ModelSpec, version: str) -> Checked:
        inputs, outputs = self._server.tensors(spec.name)
        fault = difference("Triton", inputs, spec.inputs, spec)
        fault = fault or difference("Triton", outputs, spec.outputs, spec)
        if fault is not None:
            return Checked(ModelState(spec.name, Readiness.CONTRACT_MISMATCH, fault, version))
        config = self._server.config(spec.name)
        parts = tuple(self._parts(config, _DEPTH))
        working = self._working(spec.name, parts) if parts else config
        state = ModelState(spec.name, Readiness.READY, None, version, working.device)
        if spec.mapped:  # nothing of it is noted, and what isn't known isn't claimed
            state = replace(state, weights=Weights(engine=config.engine, precision=UNKNOWN))
        return Checked(state, parts, accelerator=working.accelerator)

    def _parts(self, config: ServedConfig, depth: int) -> list[Part]:
        found: list[Part] = []
        for name, version in config.steps:
            steps = self._parts(self._server.config(name), depth - 1) if depth else []
            found += steps or [(name, version)]
        return found

    def _working(self, ensemble: str, parts: tuple[Part, ...]) -> ServedConfig:
        """Return the configuration of the working part: the catalogue's weights model, or the last part."""
        branch = self._catalogue.branches.get(ensemble)
        names = [name for name, _ in parts]
        working = branch.weights_model if branch and branch.weights_model in names else names[-1]
        return self._server.config(working)


def _not_ready(reason: str) -> Readiness:
    """Readiness that follows from Triton's reason for a model that isn't READY."""
    if is_out_of_memory(reason):
        return Readiness.OUT_OF_MEMORY
    return Readiness.LOADING if reason == "loading" else Readiness.UNAVAILABLE
