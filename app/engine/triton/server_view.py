"""Knowledge about one Triton: whether it is a single server, which models it serves, and with which weights.

One thread looks; any thread may report what an answer said.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from app.engine.base import ModelState, Weights
from app.engine.contracts import label_fault
from app.engine.triton.model_checks import Checked, Describes, Index, ModelChecks, Part
from app.engine.triton.served_weights import ServedWeights
from app.engine.triton.server_identity import LOOKS, WINDOW_S, Identity
from app.engine.weights_files import WeightsFiles
from app.errors import GatewayError
from routing.catalogue import Branch, Catalogue, ModelSpec
from routing.policy import Readiness
from routing.provenance import UNKNOWN

_log = logging.getLogger(__name__)
_PAUSE_S, _PAUSE_MAX_S = 1.0, 30.0  # before statistics that failed are asked for again


class Server(Describes, Protocol):
    """The calls about a server; errors are ours."""

    connections: int
    doubts: int

    def index(self, timeout_s: float | None = None) -> Index: ...

    def counters(self, timeout_s: float | None = None) -> Mapping[str, tuple[int, int]]: ...

    def server(self, timeout_s: float | None = None) -> tuple[str, str]: ...


class ServerView:
    """Models that one server serves, as of the last look.

    Args:
        server: its calls.
        catalogue: the models that matter.
        files: of the models, if they can be seen.
        timeout_s: of a call that concerns the whole server.
        own: returns the successful runs of this process, by model.
    """

    def __init__(
        self,
        server: Server,
        catalogue: Catalogue,
        files: WeightsFiles,
        timeout_s: float,
        own: Callable[[], Mapping[str, int]],
    ) -> None:
        self._server = server
        self._catalogue = catalogue
        self._weights = ServedWeights(files)
        self._checks = ModelChecks(server, catalogue)
        self._identity = Identity()
        self._timeout_s = timeout_s
        self._own = own
        self._answers: deque[tuple[str, str, float]] = deque()  # any thread adds, the looking one takes
        self._connections = self._doubts = 0
        self._ask_at, self._failures = 0.0, 0
        self._reloaded: set[str] = set()
        self.index: Index = {}
        self.doubts = 0  # of the server's, when the last look began

    def answered(self, model: str, version: str) -> None:
        """Note an answer from another version than the known one."""
        self._answers.append((model, version, time.monotonic()))

    def look(self) -> set[str]:
        """Ask the server what it serves, again until several looks agree; return the models that were loaded again.

        Raises:
            GatewayError: it doesn't answer.
        """
        self.doubts = self._server.doubts
        self._reloaded = set()
        self._note_connection()
        for _ in range(LOOKS):
            self._look()
            if self._identity.settled():
                break
        return self._reloaded

    def several(self) -> str | None:
        """Return the evidence that several servers stand behind the address, or None."""
        return self._identity.several(time.monotonic())

    def state(self, spec: ModelSpec) -> tuple[ModelState, bool]:
        """One model with its weights, and if the server serves it now."""
        checked = self._checks.of(spec, self.index)
        if checked.away:
            self._weights.forget([spec.name])
        if not checked.state.ready:
            return checked.state, not checked.away
        branch = self._catalogue.branches.get(spec.name)
        if branch is not None:
            return self._of_branch(branch, checked), True
        return replace(checked.state, weights=self._of((spec.name, None))), True

    def lost(self, *, ended: bool) -> None:
        """The server is away; `ended`: its process is gone, so it loads its models again."""
        self._checks.forget_all()
        self._identity.restart()
        if ended:
            self._weights.forget_all()

    def _note_connection(self) -> None:
        if self._connections != self._server.connections:
            self._connections = self._server.connections
            self._checks.forget_all()
            self._identity.restart()
        if self._doubts != self.doubts:
            self._doubts = self.doubts
            self._identity.doubt()

    def _look(self) -> None:
        started = time.monotonic()
        self.index = self._server.index(self._timeout_s)
        now = time.monotonic()
        for name, row in self.index.items():
            if row.ready:
                self._identity.observe(name, row.version, started, now)
        while self._answers:
            model, version, at = self._answers.popleft()
            self._identity.observe(model, version, at, at)
        self._look_closer()

    def _look_closer(self) -> None:
        """Compare counters; a server that has none, or can't say because one model is on its way, is still served."""
        started = time.monotonic()
        if started < self._ask_at:
            return
        try:
            name, version = self._server.server(self._timeout_s)
            counters = self._server.counters(self._timeout_s)
        except GatewayError as error:
            if self._failures == 1:  # the second in a row: no race with a model that was just unloaded
                _log.warning("Triton's statistics can't be read, so reloads may go unnoticed: %s", error)
            self._ask_at = started + min(_PAUSE_S * self._failures, _PAUSE_MAX_S)
            self._failures += 1
            return
        self._failures = 0
        now = time.monotonic()
        self._identity.observe("", f"{name} {version}", started, now)
        ready = {
            name: pair for name, pair in counters.items() if name in self.index and self.index[name].ready
        }
        again = self._identity.look(now, ready, self._own())
        for model in again:
            self._checks.forget(model)
        self._weights.forget(again)
        self._reloaded |= again

    def _of_branch(self, branch: Branch, checked: Checked) -> ModelState:
        parts = checked.parts or ((branch.name, None),)
        named = {name: (name, version) for name, version in parts}
        weights = self._of(named.get(branch.weights_model))
        mapped = branch.models[0].mapped and weights.kind == UNKNOWN
        state = checked.state if mapped else replace(checked.state, weights=weights)
        if checked.accelerator is not None:
            state = replace(state, weights=state.weights.accelerated(*checked.accelerator))
        fault = label_fault(branch, state.weights)
        if fault is not None:
            return replace(state, readiness=Readiness.CONTRACT_MISMATCH, reason=fault)
        preprocess = branch.preprocess_model
        if preprocess is not None and checked.parts:
            state = replace(state, preprocess_digest=self._of(named.get(preprocess)).digest)
        names = (branch.name, *named)
        return state if all(map(self._identity.identified, names)) else unattributed(state)

    def _of(self, part: Part | None) -> Weights:
        """The weights of a model of the catalogue; all `unknown` of others."""
        if part is None or part[0] not in self._catalogue.models:
            return Weights()
        name, version = part
        row = self.index.get(name)
        return self._weights.of(name, version or (row.version if row else "1"))


def unattributed(state: ModelState, version: str | None = None) -> ModelState:
    """`state`, if it can't be said which weights answer; class names stay, since callers need some."""
    return replace(
        state,
        version=version or state.version,
        weights=Weights(labels=state.weights.labels),
        preprocess_digest=None if state.preprocess_digest is None else UNKNOWN,
    )


def refused(catalogue: Catalogue, reason: str, url: str) -> dict[str, ModelState]:
    """States of all models while several servers stand behind one address."""
    said = f"several Tritons answer at {url}: {reason}"
    return {
        name: ModelState(name, Readiness.SEVERAL_SERVERS, said, retry_after=WINDOW_S)
        for name in catalogue.models
    }
