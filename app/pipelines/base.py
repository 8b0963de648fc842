"""Shared parts of all pipelines: the decision, the timings, and the provenance of an answer."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, TypeVar, cast

from app import context
from app.deadline import Deadline
from app.engine.base import Engine, Lease, ModelState
from app.errors import GatewayError, InferenceFailed, InsufficientGpuMemory, ModelNotReady, by_code
from app.hints import did_you_mean
from app.metrics import Metrics
from routing.catalogue import TIERS, Branch, Catalogue, Family, TensorSpec
from routing.policy import (
    Decision,
    FrameFacts,
    Readiness,
    RoutingError,
    Versions,
    Wishes,
    instead,
    route,
    variant_of,
    without_rollout,
)
from routing.provenance import (
    UNKNOWN,
    ModelUsed,
    ResizedBy,
    model_signature,
    models_used,
    resolved_model_mapping,
)
from routing.rollout import Rollout, chosen, position

_log = logging.getLogger(__name__)
DetectInput = Literal["auto", "fp32", "uint8"]
STAGES = ("decode", "queue", "prepare", "infer", "finish", "encode")
_MOST_REMEMBERED = 256
_NO_ROLLOUT: frozenset[Rollout] = frozenset()


class _Stage:
    """Context manager that measures one stage, also if it fails; a generator would take three times as long."""

    __slots__ = ("_end_span", "_ms", "_name", "_spans", "_started")

    def __init__(self, ms: dict[str, float], spans: context.Spans | None, name: str) -> None:
        self._ms, self._spans, self._name = ms, spans, name

    def __enter__(self) -> None:
        self._end_span = None if self._spans is None else self._spans.begin(self._name)
        self._started = time.perf_counter()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        ms = (time.perf_counter() - self._started) * 1000
        self._ms[self._name] += ms
        if self._end_span is not None:
            self._end_span(error)
        if self._name == "encode":
            context.note_encoded(ms)


class Timings:
    """Milliseconds per stage of one frame; `decode_s` is the time in seconds already spent on decoding it."""

    def __init__(self, decode_s: float = 0.0) -> None:
        self.ms: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self.ms["decode"] = decode_s * 1000
        self.transport = ""  # of the lease
        # Called with a name, times a block as that stage of the frame: the class itself, without a call between.
        self.stage = functools.partial(_Stage, self.ms, context.spans())

    def add(self, other: Timings) -> None:
        for name, ms in other.ms.items():
            self.ms[name] += ms


class leased:  # noqa: N801  # used like the function that it would be, in a quarter of the calls
    """Call `Engine.lease`; count the wait as stage `queue`, together with the earlier waits of the request."""

    __slots__ = ("_deadline", "_held", "_timings")

    def __init__(self, engine: Engine, branch: Branch, deadline: Deadline, timings: Timings) -> None:
        self._held = engine.lease(branch, deadline)
        self._deadline, self._timings = deadline, timings

    def __enter__(self) -> Lease:
        deadline, timings = self._deadline, self._timings
        with timings.stage("queue"):
            lease = self._held.__enter__()
        timings.ms["queue"] += deadline.queued_s * 1000
        deadline.queued_s = 0.0
        timings.transport = lease.transport
        return lease

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._held.__exit__(kind, error, trace)


@dataclass(frozen=True, slots=True)
class Served:
    """The branch that served a frame, the decision behind it, the model, and what resized the frame for it."""

    family: Family
    decision: Decision
    model: ModelState
    timings: Timings
    resized: ResizedBy | None = None

    @property
    def used(self) -> ModelUsed:
        """The entry of `models_used[]`."""
        return used_with(self.model.used, self.resized)

    @property
    def warnings(self) -> list[str]:
        warnings = list(self.decision.warnings)
        if self.model.weights.kind == "random":
            warnings.append(f"{self.decision.branch.name} has random weights: its answers mean nothing")
        return warnings

    def branch(self) -> dict[str, Any]:
        """The `branch` object of an answer."""
        branch, endpoint = self.decision.branch, self.model.endpoint
        at = {} if endpoint is None else {"endpoint": endpoint}
        return {
            "name": branch.name,
            "family": branch.family,
            "tier": branch.tier,
            "size": branch.size,
            "variant": branch.variant,
            "why": self.decision.why,
            "passed_over": [
                {"branch": passed.branch, "reason": passed.reason} for passed in self.decision.passed_over
            ],
            **at,
        }

    def described(self) -> Mapping[str, Any]:
        """All that an answer says of its making: `branch`, provenance, `degraded`, `warnings`; not to be changed.

        It is the same for every frame of one decision until the model's state changes.
        """
        context.note_served(self.family.name, self.decision.branch.name)
        derived = self.model.derived
        known = derived.get(id(self.decision))
        if known is None or known[0] is not self.decision or known[1] != self.resized:
            if len(derived) >= _MOST_REMEMBERED:
                derived.clear()
            known = derived[id(self.decision)] = (self.decision, self.resized, self._describe())
        return cast("Mapping[str, Any]", known[2])

    def _describe(self) -> Mapping[str, Any]:
        return {
            "branch": self.branch(),
            **provenance([self]),
            "degraded": self.decision.degraded,
            "warnings": self.warnings,
        }


@functools.lru_cache(maxsize=_MOST_REMEMBERED)
def used_with(used: ModelUsed, resized: ResizedBy | None) -> ModelUsed:
    """The entry of `models_used[]` of a model whose input was resized so."""
    return replace(used, prepare=resized)


@functools.lru_cache(maxsize=_MOST_REMEMBERED)
def _nbytes(specs: tuple[TensorSpec, ...]) -> int:
    return sum(spec.nbytes for spec in specs)


def observe(metrics: Metrics, served: Served) -> None:
    """Count one inference, and its frame: at the end of its request, or now if there is no request."""
    branch, timings = served.decision.branch, served.timings
    metrics.observe_inference(branch.name, timings.transport, _nbytes(branch.inputs), _nbytes(branch.outputs))
    frame = (branch.family, branch.name, served.decision.kind, timings.ms)
    request = context.current()
    if request is None:
        metrics.observe_frame(*frame)
    else:
        request.frames.append(frame)


def provenance(served: Iterable[Served]) -> dict[str, Any]:
    """`resolved_model_mapping`, `models_used` and `model_signature` of an answer that these frames make up."""
    served = list(served)
    for frame in served:
        context.note_served(frame.family.name, frame.decision.branch.name)
    made_by = {(s.family.component, s.decision.branch.name, s.used) for s in served}
    return dict(_provenance(frozenset(made_by)))


@functools.lru_cache(maxsize=256)
def _provenance(made_by: frozenset[tuple[str, str, ModelUsed]]) -> Mapping[str, Any]:
    """Return the provenance of branches and models, which is the same for every frame until a model is reloaded."""
    used = models_used(model for _, _, model in made_by)
    return {
        "resolved_model_mapping": resolved_model_mapping(
            (component, branch) for component, branch, _ in made_by
        ),
        "models_used": used,
        "model_signature": model_signature(used),
    }


def wishes_of(
    branch: str | None, variant: str | None = None, *, fallback: bool = False, version: str | None = None
) -> Wishes:
    """Query parameters that override routing; `branch` is a branch's name, a tier or a size in pixels."""
    if branch is not None and branch.isdecimal() and len(branch) < 6:
        return Wishes(size=int(branch), variant=variant, fallback=fallback, version=version)
    if branch in TIERS:
        return Wishes(tier=branch, variant=variant, fallback=fallback, version=version)
    return Wishes(branch=branch, variant=variant, fallback=fallback, version=version)


T = TypeVar("T")


class _OfStates(Mapping[str, T]):
    """One value of each model's state by name, looked up when it is asked for: routing needs three of dozens."""

    __slots__ = ("_states",)

    def __init__(self, states: Mapping[str, ModelState]) -> None:
        self._states = states

    def __iter__(self) -> Iterator[str]:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)


class ReadinessByName(_OfStates[Readiness]):
    """The readiness of models."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Readiness:
        return self._states[name].readiness


class _VersionByName(_OfStates[str]):
    """The versions that models serve."""

    __slots__ = ()

    def __getitem__(self, name: str) -> str:
        return self._states[name].version


class _Decided:
    """Decisions under one state of the models, which is another object as soon as anything changes."""

    def __init__(self) -> None:
        self._known: tuple[object, dict[object, Decision]] = (None, {})

    def known(self, states: object, asked: object) -> Decision | None:
        under, decisions = self._known
        return decisions.get(asked) if under is states else None

    def note(self, states: object, asked: object, decision: Decision) -> None:
        under, decisions = self._known
        if under is not states or len(decisions) >= _MOST_REMEMBERED:
            self._known = under, decisions = states, {}
        decisions[asked] = decision


@dataclass(frozen=True, slots=True)
class Router:
    """`routing.policy.route` over what the engine says is ready, with our errors.

    `variant`, or one of several separated by commas, serves when the caller names none; None: the catalogue's.
    `detect_input`: whether frames travel to the detector as prepared FP32 or as UINT8 pixels; `auto`: as UINT8 where
    tensors are copied into messages.
    `rollouts`, by branch: further versions that serve a share of the requests; see `routing.rollout`.
    """

    catalogue: Catalogue
    engine: Engine
    variant: str | None = None
    detect_input: DetectInput = "auto"
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    _decided: _Decided = field(default_factory=_Decided, init=False, repr=False, compare=False)

    def decide(self, family: str, facts: FrameFacts | None, wishes: Wishes) -> Decision:
        """Choose a branch.

        Raises:
            InvalidParameter, ModelNotFound, ModelNotReady, WeightsMissing, InsufficientGpuMemory,
            TritonUnavailable: no branch can serve the wish; the message says which and why.
        """
        rolled = self._rolled_out(family) if self.rollouts and wishes.version is None else _NO_ROLLOUT
        states, asked = self.engine.ready(), (family, facts, wishes, self.engine.transport, rolled)
        decision = self._decided.known(states, asked)
        if decision is None:
            decision = self._route(states, family, facts, wishes, rolled)
            self._decided.note(states, asked, decision)
        return decision

    def has_versions(self, family: str) -> bool:
        """Tell if a branch of the family has further versions."""
        branches = self.catalogue[family].branches
        return any(
            one.versions for branch in branches for one in (branch, branch.alternate) if one is not None
        )

    def _rolled_out(self, family: str) -> frozenset[Rollout]:
        """The rollouts whose share the current request is in; work without a request, as of jobs, is in none."""
        key = context.rollout_key()
        if key is None:
            return _NO_ROLLOUT
        return chosen(self.rollouts, position(self.catalogue[family].component, key))

    def _route(
        self,
        states: Mapping[str, ModelState],
        family: str,
        facts: FrameFacts | None,
        wishes: Wishes,
        rolled: frozenset[Rollout],
    ) -> Decision:
        try:
            ready = ReadinessByName(states)
            versions = Versions(_VersionByName(states), rolled)
            return route(
                self.catalogue[family], facts, wishes, ready, self.variant, self._compact(), versions
            )
        except RoutingError as error:
            detail = error.detail
            state = states.get(error.branch or "")
            if state is None:
                hint = did_you_mean(error.branch or "", [b.name for b in self.catalogue[family].branches])
                raise by_code(error.code)(detail + hint) from error
            if state.reason:
                detail = f"{detail}: {state.reason}"
            raise by_code(error.code)(detail, retry_after=state.wait_s) from error

    def variant_of(self, family: str, wishes: Wishes) -> str | None:
        """The variant that serves these wishes; None stands for that of a family which names none.

        Raises:
            InvalidParameter: the family has no such variant.
        """
        try:
            return variant_of(self.catalogue[family], wishes, self.variant)
        except RoutingError as error:
            raise by_code(error.code)(error.detail) from error

    def weights_now(self, branch: str, weights: tuple[str | None, ...]) -> tuple[str | None, ...] | None:
        """Return what weights that a branch had once are called now, over several servers.

        Weights of an unknown digest were one server's, and are called by their digest once that is known.

        Args:
            branch: by its name.
            weights: as `ModelState.weights_key` was.

        Returns:
            None: every server has the branch READY with other weights.
        """
        *_, endpoint = weights
        servers = self.engine.endpoints()
        if endpoint is not None:
            state = servers.get(endpoint, {}).get(branch)
            same = state is not None and state.ready and state.version == weights[0]
            return state.weights_key if same and state is not None else weights
        states = [view[branch] for view in servers.values() if branch in view]
        known = bool(states) and all(one.ready and one.weights.digest != UNKNOWN for one in states)
        return None if known and weights not in [one.weights_key for one in states] else weights

    def _compact(self) -> str:
        """Return the reason to send frames as UINT8, or an empty string to send FP32."""
        if self.detect_input == "uint8":
            return "as set"
        by_bytes = self.detect_input == "auto" and self.engine.transport == "bytes"
        return "tensors go as bytes" if by_bytes else ""

    def without_rollout(self, failed: Decision, wishes: Wishes, error: GatewayError) -> Decision | None:
        """Return the decision by the default version, where a version fails that only a rollout has chosen."""
        default = self.catalogue.branches.get(failed.branch.version_of or "")
        if default is None or not self.engine.ready()[default.name].ready:
            return None
        found = without_rollout(failed, default, wishes, error.code)
        if found is not None:
            _log.warning("%s failed, so %s serves: %s", failed.branch.name, default.name, error.detail)
        return found

    def instead(self, failed: Decision, wishes: Wishes) -> Decision | None:
        """Return the decision for a frame whose branch has run out of memory, or None if the caller allows no other
        branch.
        """
        family = self.catalogue[failed.branch.family]
        try:
            return instead(family, failed, wishes, ReadinessByName(self.engine.ready()))
        except RoutingError:
            return None


@dataclass(frozen=True, slots=True)
class Framed:
    """Context of a decoded frame: its size, the caller's wishes, its deadline and its timings.

    `decision` is that of the whole video, where the frame belongs to one; otherwise the frame is routed by itself.
    `resized`: what resized the frame, where more than the service's resizer did; its size in `facts` is the source's.
    """

    facts: FrameFacts
    wishes: Wishes
    deadline: Deadline
    timings: Timings
    decision: Decision | None = None
    resized: ResizedBy | None = None

    def decide(self, router: Router, family: str) -> Decision:
        """See `Router.decide`."""
        return self.decision or router.decide(family, self.facts, self.wishes)


def on_branch(router: Router, family: str, framed: Framed, run: Callable[[Decision], T]) -> T:
    """Call `run` on the chosen branch, and on the next smaller ones while each runs out of memory.

    Only callers who allow a fallback get one; a frame of a video falls back by itself, and the next one doesn't. A
    version that only a rollout has chosen, and that fails, is replaced by the default one.

    Raises:
        DeadlineExceeded: the frame's turn came too late (stage `queue`); it is not begun.
        GatewayError: see `Router.decide` and `run`.
    """
    framed.deadline.check("queue")
    decision = framed.decide(router, family)
    while True:
        try:
            return run(decision)
        except (InsufficientGpuMemory, InferenceFailed, ModelNotReady) as error:
            other = None if framed.decision else router.without_rollout(decision, framed.wishes, error)
            if other is None and isinstance(error, InsufficientGpuMemory):
                other = router.instead(decision, framed.wishes)
            if other is None:
                raise
            decision = other
