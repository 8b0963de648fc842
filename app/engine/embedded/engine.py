"""ONNX Runtime in this process, over the same repository that Triton serves: ensembles, graphs and all.

One background thread loads the models, in the order that the options give; `ready` tells how far it is. First runs are
done beside it, on a GPU several at a time. On a processor, a first run that has succeeded before is not repeated: it
takes as long as any later one, and would end the same. The loading thread then looks at the files from time to time:
what is new or changed is loaded beside what serves, and takes its place. A branch that ran out of memory is taken out,
and loaded again once its sessions are gone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime as ort

from app.deadline import Deadline
from app.engine.base import NOT_THERE, EngineUsage, Lease, LeasePool, ModelState, not_served
from app.engine.contracts import label_fault
from app.engine.embedded.first_runs import FirstRuns
from app.engine.embedded.graph_cache import GraphCache
from app.engine.embedded.model import (
    ContractError,
    EmbeddedLease,
    Graph,
    device,
)
from app.engine.embedded.sessions import Sessions
from app.engine.model_files import Stamp, stamps
from app.engine.quarantine import Quarantine, Recovery
from app.engine.warmup import PATIENCE_S, Warmer, failed
from app.engine.weights import WeightsBook
from app.errors import GatewayError, InsufficientGpuMemory, ModelNotReady
from routing.catalogue import Branch, Catalogue
from routing.policy import Readiness
from routing.versions import served_folder

_log = logging.getLogger(__name__)
_LEFT_OUT = "not among the models that are loaded (set by GATEWAY_MODELS)"
_CLOSE_S = 1.0  # longest wait in `close` for work that can't be interrupted
_RUN_S = 60.0  # of the run that ends a quarantine, where no time of a first run is set


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """Leases of a branch, threads of one inference (0: all cores), and which branches are loaded.

    `branches` are their names in the order of loading (None: all, small ones first); `max_waiting` requests may queue
    for a branch. `warmup_s`: time for the first run of a branch, before it is served (0: none); `rescan_s` between two
    looks at the files (0: one look).
    `reload_pause_s`, `reload_longest_s`: pauses before a branch that ran out of memory is reloaded.
    `cache`: folder of optimised graphs and of notes of first runs, and the most bytes in it.
    """

    leases: int = 2
    max_waiting: int = 64
    threads: int = 0
    branches: tuple[str, ...] | None = None
    warmup_s: float = 0.0
    rescan_s: float = 0.0
    reload_pause_s: float = 1.0
    reload_longest_s: float = 60.0
    cache: tuple[Path, int] | None = None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A loaded branch: its leases, its graphs, and the states of it and its parts once it serves.

    Until its first run is over, what served under its name before goes on.
    """

    branch: Branch
    states: Mapping[str, ModelState]
    pool: LeasePool[EmbeddedLease] | None
    graphs: Sequence[Graph] = ()

    @property
    def state(self) -> ModelState:
        return self.states[self.branch.name]

    def with_state(self, state: ModelState) -> _Candidate:
        """The same, when `state` is what its first run led to."""
        pool = self.pool if state.ready else None
        return replace(self, states={**self.states, self.branch.name: state}, pool=pool)


class EmbeddedEngine:
    """See the module."""

    name = "embedded"
    transport = "inprocess"

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
        self._device = device()
        self._states: Mapping[str, ModelState] = {
            name: self._state(name, *self._found(name)) for name in catalogue.models
        }
        # `_loading` guards these three. Stamps: as of the branch's loading; looks: as of the last look.
        self._loading = threading.RLock()
        cache = self._options.cache
        self._sessions = Sessions(
            repository, book, self._options.threads, self._device, GraphCache(*cache) if cache else None
        )
        self._first_runs = FirstRuns(cache[0]) if cache and self._device == "cpu" else None
        self._stamps: dict[str, Mapping[str, Stamp]] = {}
        self._looks: Mapping[str, Stamp] = {}
        # `_changing` guards these three, and the writing of `_states`; nobody holds it for long.
        self._changing = threading.RLock()
        self._pools: dict[str, LeasePool[EmbeddedLease]] = {}
        self._candidates: dict[str, _Candidate] = {}
        self._runs: set[ort.RunOptions] = set()
        self._leave_out()
        self._closing = threading.Event()
        self._all_tried = False
        self.loaded = threading.Event()  # every branch serves, or has been given up
        limit_s = self._options.warmup_s
        order = [branch.name for branch in self._in_order()]
        # On a processor each takes all cores, and the memory of one serves the next.
        at_once = 1 if self._device == "cpu" else None
        self._warmer = Warmer(self._first_run, limit_s, self._settle, order, at_once) if limit_s else None
        pauses = self._options.reload_pause_s, self._options.reload_longest_s
        self._quarantine = Quarantine(self._recover, lambda _: None, *pauses)
        self._loader = threading.Thread(target=self._load_all, name="embedded-loader", daemon=True)
        self._loader.start()

    def ready(self) -> Mapping[str, ModelState]:
        return self._quarantine.verdicts(self._states) if self._quarantine.cases else self._states

    def serving(self, name: str) -> ModelState:
        return self.ready()[name]

    def endpoints(self) -> Mapping[str, Mapping[str, ModelState]]:
        return {}

    def usage(self) -> EngineUsage:
        pools = {name: pool.usage() for name, pool in self._pools.copy().items()}
        return EngineUsage(pools, None, 0, *self._quarantine.counts())

    @contextmanager
    def lease(self, branch: Branch, deadline: Deadline) -> Iterator[Lease]:
        pool = self._pools.get(branch.name)
        if pool is None:
            raise not_served(self._quarantine.verdict(self._states[branch.name]))
        lease, began = pool.acquire(deadline), time.monotonic()
        try:
            if self._quarantine.cases:
                self._quarantine.refuse(branch.name)
            try:
                yield lease
            except (InsufficientGpuMemory, ModelNotReady) as error:
                self._quarantine.note_failure(branch, error)
                raise
        finally:
            pool.release(lease, time.monotonic() - began)

    def abandon(self) -> None:
        """Nothing outlives this process."""

    def close(self) -> None:
        """End loading and first runs as soon as they can be ended; sessions go with their last lease.

        A model that is being read, or a node that runs, can't be interrupted: its thread is left to end by itself.
        """
        self._closing.set()
        with self._changing:
            for options in self._runs:
                options.terminate = True
        self._quarantine.close()
        if self._warmer is not None:
            self._warmer.close()
        self._loader.join(_CLOSE_S)
        self._quarantine.join(_CLOSE_S)
        if self._warmer is not None:
            self._warmer.join(_CLOSE_S)
        gone = "the engine is closed"
        with self._changing:
            states = self._states.values()
            self._set(*(replace(s, readiness=Readiness.UNAVAILABLE, reason=gone) for s in states))
            for pool in self._pools.values():
                pool.close()
            self._pools.clear()
            self._candidates.clear()
        self._sessions.clear()

    def _found(self, name: str) -> tuple[Readiness, str | None]:
        folder = self._repository / name
        if not self._catalogue.models[name].mapped and not (folder / "config.pbtxt").is_file():
            return Readiness.MISSING, f"no {name}/config.pbtxt in the repository"
        version = served_folder(folder)
        if self._catalogue.models[name].kind != "ensemble" and not (version / "model.onnx").is_file():
            return Readiness.WEIGHTS_MISSING, f"no {name}/{version.name}/model.onnx in the repository"
        return Readiness.LOADING, None

    def _state(self, name: str, readiness: Readiness, reason: str | None = None) -> ModelState:
        version, loading = served_folder(self._repository / name).name, readiness is Readiness.LOADING
        weights = self._book.lookup(name, version)
        return ModelState(
            name, readiness, reason, version, self._device, "inprocess", weights, settling=loading
        )

    def _set(self, *states: ModelState) -> None:
        with self._changing:
            self._states = {**self._states, **{state.name: state for state in states}}

    def _load_all(self) -> None:
        branches = self._in_order()
        built = [branch for branch in branches if self._built(branch)]
        for branch in branches:
            if self._closing.is_set():
                break
            if branch in built:
                _log.info("loading %d of %d: %s", built.index(branch) + 1, len(built), branch.name)
            self._bring(branch)
            if [branch] == built[:1]:
                self._wait_for(branch)
        with self._changing:
            self._all_tried = True
            self._note_loaded()
        while self._options.rescan_s and not self._closing.wait(self._options.rescan_s):
            self._rescan(branches)

    def _built(self, branch: Branch) -> bool:
        return all(self._found(model.name)[0] is Readiness.LOADING for model in branch.models)

    def _wait_for(self, branch: Branch) -> None:
        """Let the first run of the branch have the processor for itself: it is what most requests need."""
        limit = Deadline.after(PATIENCE_S)
        while branch.name in self._candidates and limit.remaining() and not self._closing.wait(0.02):
            pass

    def _in_order(self) -> list[Branch]:
        """The branches to load; the others say that they are left out."""
        known = self._catalogue.branches
        if self._options.branches is None:
            return sorted(known.values(), key=lambda branch: (branch.size or 0, branch.name))
        return [known[name] for name in self._options.branches]

    def _leave_out(self) -> None:
        """Mark the branches that aren't in `_in_order`, and the models that only they use, as not loaded."""
        wanted = {model.name for branch in self._in_order() for model in branch.models}
        for branch in self._catalogue.branches.values():
            parts = [self._states[model.name] for model in branch.models if model.name not in wanted]
            missing = next((part for part in parts if part.readiness in NOT_THERE), None)
            if branch.name not in wanted and missing is not None:
                self._set(replace(missing, name=branch.name))
            self._set(
                *(
                    replace(part, readiness=Readiness.UNAVAILABLE, reason=_LEFT_OUT)
                    for part in parts
                    if self._states[part.name].readiness is Readiness.LOADING
                )
            )

    def _rescan(self, branches: Sequence[Branch]) -> None:
        """Load what has changed since it was loaded, unless it is still changing between two looks."""
        before, self._looks = self._looks, stamps(self._repository, self._catalogue.models)
        for branch in branches:
            now = {model.name: self._looks[model.name] for model in branch.models}
            settled = all(before.get(name) == look for name, look in now.items())
            if settled and now != self._stamps[branch.name] and not self._closing.is_set():
                self._bring(branch)

    def _bring(self, branch: Branch) -> None:
        """Load a branch and serve it. The old version serves until then, and afterwards if loading fails."""
        with self._loading:
            candidate = self._load(branch)
        if self._warmer is None or candidate.pool is None:
            self._publish(candidate)
            return
        known = self._has_run(candidate)
        with self._changing:
            self._warmer.forget(branch.name)  # what its first run led to is no longer true
            if known:
                self._publish(candidate)
            else:
                self._candidates[branch.name] = candidate
                self._settle()

    def _has_run(self, candidate: _Candidate) -> bool:
        """True if its first run has succeeded on this machine, and needs no repetition."""
        notes = self._first_runs
        return notes is not None and notes.done(candidate.branch, candidate.graphs)

    def _settle(self) -> None:
        """Serve the candidates whose first run is over, or give them up."""
        if self._warmer is None:
            return
        with self._changing:
            for candidate in tuple(self._candidates.values()):
                verdict = self._warmer.verdict(candidate.branch, candidate.state)
                if verdict.readiness is not Readiness.LOADING:
                    self._warmer.forget(candidate.branch.name)
                    self._publish(candidate.with_state(verdict))
                elif candidate.branch.name not in self._pools:
                    self._set(verdict)

    def _first_run(self, branch: Branch, deadline: Deadline) -> None:
        with self._changing:
            candidate = self._candidates.get(branch.name)
        if candidate is not None and candidate.pool is not None:
            self._run_once(candidate.pool, deadline.remaining())
            if self._first_runs is not None:
                self._first_runs.note(branch, candidate.graphs)

    def _run_once(self, pool: LeasePool[EmbeddedLease], limit_s: float) -> None:
        """A run that `limit_s` ends, and `close`."""
        options = ort.RunOptions()
        with self._changing:
            self._runs.add(options)
            options.terminate = self._closing.is_set()
        try:
            with pool.lease(Deadline.after(limit_s)) as lease:
                lease.first_run(limit_s, options)
        finally:
            with self._changing:
                self._runs.discard(options)

    def _publish(self, candidate: _Candidate) -> None:
        """Serve the models that were loaded, or refuse them with a reason."""
        branch, readiness, reason = candidate.branch, candidate.state.readiness, candidate.state.reason
        with self._changing:
            self._candidates.pop(branch.name, None)
            if self._closing.is_set():
                return
            old = self._pools.get(branch.name)
            if candidate.pool is not None:
                self._pools[branch.name] = candidate.pool
                _log.info(
                    "loaded %s (%s, weights: %s)", branch.name, self._device, candidate.state.weights.kind
                )
            if old is None or readiness is Readiness.READY or readiness in NOT_THERE:
                self._set(*candidate.states.values())
            else:
                still = (
                    f"its new files can't be served, so the model of the earlier files still serves: {reason}"
                )
                self._set(replace(self._states[branch.name], reason=still))
                _log.warning("%s: %s", branch.name, still)
            if readiness in NOT_THERE and self._pools.pop(branch.name, None) is not None:
                _log.info("%s is gone: %s", branch.name, reason)
            if branch.name not in self._pools:
                self._forget_models(branch)
            elif old is self._pools[branch.name]:
                old = None  # it serves on
            self._note_loaded()
        if old is not None:
            old.close()

    def _note_loaded(self) -> None:
        if self._all_tried and not self._candidates:
            self.loaded.set()

    def _recover(self, branch: Branch, reloaded: bool) -> Recovery:
        """Recover from exhausted memory: drop the sessions, which never release any, and open new ones."""
        del reloaded  # this thread alone loads
        with self._loading:
            both = [self._catalogue.branches[name] for name in branch.same_weights]
            for one in both:
                with self._changing:
                    self._candidates.pop(one.name, None)
                    old = self._pools.pop(one.name, None)
                if old is not None:
                    old.close()
                del old  # the last that holds the sessions, but for runs that are under way
                self._forget_models(one)
            for one in both:
                self._publish(self._tried(self._load(one)))
            if self._states[branch.name].readiness in NOT_THERE:
                return "gone"
            if branch.name not in self._pools:
                raise not_served(self._states[branch.name])
        return "reloaded"

    def _tried(self, candidate: _Candidate) -> _Candidate:
        """Return the candidate after a first run, which is made at once."""
        if candidate.pool is None:
            return candidate
        limit_s = self._options.warmup_s or _RUN_S
        try:
            self._run_once(candidate.pool, limit_s)
        except GatewayError as error:
            return candidate.with_state(failed(candidate.state, error, limit_s))
        return candidate

    def _forget_models(self, branch: Branch) -> None:
        """Forget the branch's models that no other branch needs; their memory goes with their last lease."""
        for name in {model.name for model in branch.models} - self._needed_beside(branch):
            self._sessions.forget(name)

    def _needed_beside(self, branch: Branch) -> set[str]:
        """Models of the other branches that are served, or soon will be."""
        with self._changing:
            names = {*self._pools, *self._candidates} - {branch.name}
        return {model.name for name in names for model in self._catalogue.branches[name].models}

    def _load(self, branch: Branch) -> _Candidate:
        """A branch after an attempt to load it; what is wrong ends in its state, never in the loader's death.

        Its states are without those of parts that have one already: a twin's branch, and graphs that other twins run
        on.
        """
        self._stamps[branch.name] = stamps(self._repository, (model.name for model in branch.models))
        parts = {model.name: self._state(model.name, *self._found(model.name)) for model in branch.models}
        parts[branch.name], pool, graphs = self._attempt(branch, parts)
        for name, part in parts.items():
            if part.readiness is Readiness.LOADING:  # nobody will load it now
                reason = f"not loaded, because {branch.name} isn't: {parts[branch.name].reason}"
                parts[name] = replace(part, readiness=Readiness.UNAVAILABLE, reason=reason)
        kept = set(self._catalogue.branches) - {branch.name}
        needed = self._needed_beside(branch)
        states = {n: p for n, p in parts.items() if n not in kept and (p.ready or n not in needed)}
        return _Candidate(branch, states, pool, graphs)

    def _attempt(
        self, branch: Branch, parts: dict[str, ModelState]
    ) -> tuple[ModelState, LeasePool[EmbeddedLease] | None, Sequence[Graph]]:
        """The branch's own state, leases and graphs; the parts that have been loaded are READY in `parts`."""
        for missing in parts.values():
            if missing.readiness in NOT_THERE:
                return self._refused(branch, missing.readiness, missing.reason)
        try:
            graphs = self._sessions.graphs(branch, self._stamps[branch.name])
        except ContractError as error:
            return self._refused(branch, Readiness.CONTRACT_MISMATCH, str(error))
        except InsufficientGpuMemory as error:
            return self._refused(branch, Readiness.OUT_OF_MEMORY, error.detail)
        except (GatewayError, ValueError, OSError) as error:  # ConfigError is a ValueError, as is no UTF-8
            return self._refused(branch, Readiness.UNAVAILABLE, str(error))
        for graph in graphs:
            fault = label_fault(branch, graph.weights) if graph.name == branch.weights_model else None
            if fault is not None:
                return self._refused(branch, Readiness.CONTRACT_MISMATCH, fault)
            parts[graph.name] = replace(self._state(graph.name, Readiness.READY), weights=graph.weights)
        return *self._leases(branch, graphs), graphs

    def _refused(
        self, branch: Branch, readiness: Readiness, reason: str | None
    ) -> tuple[ModelState, None, Sequence[Graph]]:
        return self._state(branch.name, readiness, reason), None, ()

    def _leases(self, branch: Branch, graphs: Sequence[Graph]) -> tuple[ModelState, LeasePool[EmbeddedLease]]:
        weights = {graph.name: graph.weights for graph in graphs}
        preprocess = branch.preprocess_model
        state = replace(
            self._state(branch.name, Readiness.READY),
            weights=weights[branch.weights_model],
            preprocess_digest=weights[preprocess].digest if preprocess else None,
        )
        options = self._options
        pool = LeasePool(lambda: EmbeddedLease(branch, graphs, state), options.leases, options.max_waiting)
        return state, pool
