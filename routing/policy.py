"""Choose the branch of a frame, with the reason. Pure and total: a Decision, or a RoutingError with a code.

Deciding changes nothing; `GET /v1/branches`, the pipelines, the benchmarks and the tests ask the same
function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from routing.catalogue import STANDARD, TIERS, Branch, Family, nameable, with_twins
from routing.rollout import Rollout, base_of
from routing.versions import FIRST


class Readiness(StrEnum):
    """An engine's report on a model."""

    READY = "ready"
    LOADING = "loading"
    UNAVAILABLE = "unavailable"
    CONTRACT_MISMATCH = "contract_mismatch"
    WEIGHTS_MISSING = "weights_missing"
    OUT_OF_MEMORY = "out_of_memory"
    MISSING = "missing"
    UNREACHABLE = "unreachable"
    SEVERAL_SERVERS = "several_servers"


# Readiness of the branch that was asked for -> code of the error, and its words in a reason.
ERROR_CODES: Mapping[Readiness, tuple[str, str]] = {
    Readiness.LOADING: ("model_not_ready", "still loading"),
    Readiness.UNAVAILABLE: ("model_not_ready", "not ready"),
    Readiness.CONTRACT_MISMATCH: ("model_not_ready", "its tensors differ from the catalogue"),
    Readiness.WEIGHTS_MISSING: ("weights_missing", "its weights are missing"),
    Readiness.OUT_OF_MEMORY: ("insufficient_gpu_memory", "out of memory"),
    Readiness.MISSING: ("model_not_found", "not in the repository"),
    Readiness.UNREACHABLE: ("triton_unavailable", "the backend can't be reached"),
    Readiness.SEVERAL_SERVERS: ("several_servers", "several servers answer at one address"),
}


class RoutingError(Exception):
    """No branch can serve the wish. `code` is one of the API's problem codes, `branch` the one meant."""

    def __init__(self, code: str, detail: str, branch: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.branch = branch


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """A frame's size in pixels, and the size that the caller's analysis runs at, if it resizes.

    Where only one analysis side is given, the other follows from the frame's aspect ratio.
    """

    width: int
    height: int
    analysis_width: int | None = None
    analysis_height: int | None = None

    @property
    def analysis_size(self) -> tuple[int, int]:
        """`(width, height)` that steers routing, in pixels."""
        width, height = self.analysis_width, self.analysis_height
        if width is None and height is None:
            return self.width, self.height
        if width is None and height is not None:
            width = max(1, round(self.width * height / self.height))
        if height is None and width is not None:
            height = max(1, round(self.height * width / self.width))
        return width or 1, height or 1


@dataclass(frozen=True, slots=True)
class Wishes:
    """The caller's wishes: a branch by name, tier or size, a variant, and whether a fallback may serve.

    `version` is the number of a version of the branch. `kept` are versions that earlier frames of a session had, as
    pairs of a branch and a number; they count where no version is wished for, as long as they exist.
    """

    branch: str | None = None
    tier: str | None = None
    size: int | None = None
    variant: str | None = None
    fallback: bool = False
    version: str | None = None
    kept: tuple[tuple[str, str], ...] = ()

    @property
    def overrides(self) -> bool:
        return self.branch is not None or self.tier is not None or self.size is not None


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A branch that was not taken, and why."""

    branch: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The branch that serves, and why. `degraded`: not the branch that was meant, as the caller allowed."""

    branch: Branch
    kind: Literal["rule", "override", "fallback", "rollout"]
    why: str
    passed_over: tuple[PassedOver, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def degraded(self) -> bool:
        return self.kind == "fallback"


@dataclass(frozen=True, slots=True)
class Versions:
    """Numbers of the versions that branches serve by default, by name, and the rollouts whose share a request is in.

    A name that is absent serves version 1.
    """

    served: Mapping[str, str] = field(default_factory=dict)
    rollouts: frozenset[Rollout] = frozenset()


def route(
    family: Family,
    facts: FrameFacts | None,
    wishes: Wishes,
    ready: Mapping[str, Readiness],
    default_variant: str | None = None,
    compact: str = "",
    versions: Versions | None = None,
) -> Decision:
    """Choose the branch of `family` for a frame.

    Args:
        family: from the catalogue.
        facts: the frame's size, every side positive; None for a family without sizes (text).
        wishes: the caller's overrides.
        ready: readiness by branch name; a name that is absent counts as `missing`.
        default_variant: the one that serves when the caller names none, in the family that has it (None, and in
            other families: the catalogue's).
        compact: why the frame had better travel as UINT8, in words; empty: it needn't. Then the twin of the branch
            serves, if it is ready and the caller has named no branch.
        versions: as far as they are known.

    Raises:
        RoutingError: `invalid_parameter` (a wish that makes no sense), `model_not_found`, `model_not_ready`,
            `weights_missing`, `insufficient_gpu_memory` or `triton_unavailable`.
    """
    sides = () if facts is None else (facts.width, facts.height, facts.analysis_width, facts.analysis_height)
    if any(side is not None and side < 1 for side in sides):
        raise RoutingError("invalid_parameter", "a frame's sides must be positive")
    decision = _decide(family, facts, wishes, ready, default_variant)
    decision = _in_version(decision, wishes, ready, versions or Versions())
    if _state(ready, decision.branch) is not Readiness.READY:
        decision = _fall_back(family, decision, wishes, ready)
    if compact and wishes.branch is None:
        decision = _compacted(decision, ready, compact)
    return _with_warnings(facts, decision)


def _in_version(
    decision: Decision, wishes: Wishes, ready: Mapping[str, Readiness], versions: Versions
) -> Decision:
    """The version of the branch that the caller, the session or a rollout asks for; else the default one."""
    branch = decision.branch
    if wishes.version is not None:
        return replace(
            decision,
            branch=_version(branch, wishes.version, versions),
            why=f"{decision.why}, version={wishes.version}",
        )
    if not branch.versions:
        return decision
    kept = dict(wishes.kept).get(base_of(branch))
    if kept is not None and kept in (known := _known(branch, versions)):
        other = known[kept]
        return (
            decision
            if other is branch
            else replace(decision, branch=other, kind="rollout", why=_kept(decision))
        )
    rollout = next((one for one in versions.rollouts if one.branch == base_of(branch)), None)
    if rollout is None or rollout.version == versions.served.get(branch.name, FIRST):
        return decision
    return _rolled_out(decision, rollout, ready)


def _kept(decision: Decision) -> str:
    return f"rollout: the session has this version ({decision.why})"


def _rolled_out(decision: Decision, rollout: Rollout, ready: Mapping[str, Readiness]) -> Decision:
    """The version of a rollout, if it is ready; otherwise the default one serves."""
    branch = next((one for one in decision.branch.versions if one.version == rollout.version), None)
    if branch is None:
        return decision
    words = f"version {rollout.version} serves {rollout.percent} of keys"
    state = _state(ready, branch)
    if state is Readiness.READY:
        return replace(decision, branch=branch, kind="rollout", why=f"rollout: {words} ({decision.why})")
    passed = PassedOver(branch.name, ERROR_CODES[state][1])
    why = f"{decision.why}, version {rollout.version} {passed.reason}"
    return replace(decision, why=why, passed_over=(*decision.passed_over, passed))


def _known(branch: Branch, versions: Versions) -> dict[str, Branch]:
    """Versions of a branch by number; the default one wins, where a version has just become it."""
    others = {one.version: one for one in branch.versions if one.version is not None}
    number = branch.version or versions.served.get(branch.name, FIRST)
    return {**others, number: branch}


def _version(branch: Branch, number: str, versions: Versions) -> Branch:
    known = _known(branch, versions)
    if number not in known:
        there = ", ".join(sorted(known, key=int))
        words = "is version" if branch.version_of is not None else "has"
        raise RoutingError(
            "model_not_found", f"{branch.name} has no version {number[:20]!r}; it {words} {there}"
        )
    return known[number]


def _compacted(decision: Decision, ready: Mapping[str, Readiness], reason: str) -> Decision:
    twin = decision.branch.compact
    if twin is None or _state(ready, twin) is not Readiness.READY:
        return decision
    return replace(decision, branch=twin, why=f"{decision.why}, frame as UINT8: {reason}")


def instead(family: Family, failed: Decision, wishes: Wishes, ready: Mapping[str, Readiness]) -> Decision:
    """Return the decision for a frame whose branch has just run out of memory: the next smaller branch that is
    ready.

    Args:
        family: of the branch.
        failed: what was decided before.
        wishes: as they were then.
        ready: readiness by branch name; the failed branch, and what has the same weights, counts as out of memory
            whatever stands there.

    Raises:
        RoutingError: `insufficient_gpu_memory`: no fallback is allowed, or none is ready.
    """
    known = {**ready, **dict.fromkeys(failed.branch.same_weights, Readiness.OUT_OF_MEMORY)}
    return replace(_fall_back(family, failed, wishes, known), warnings=failed.warnings)


def without_rollout(failed: Decision, default: Branch, wishes: Wishes, reason: str) -> Decision | None:
    """Return the decision for a frame whose version has just failed, though the caller hasn't asked for that version.

    None: the caller has, or a session is to have one version.

    Args:
        failed: what was decided before.
        default: the default version of its branch.
        wishes: as they were then.
        reason: why it failed, in words.
    """
    if failed.kind != "rollout" or wishes.kept:
        return None
    passed = PassedOver(failed.branch.name, reason)
    why = f"rule: version {failed.branch.version} {reason} ({failed.why})"
    return replace(failed, branch=default, kind="rule", why=why, passed_over=(*failed.passed_over, passed))


def _decide(
    family: Family,
    facts: FrameFacts | None,
    wishes: Wishes,
    ready: Mapping[str, Readiness],
    default_variant: str | None,
) -> Decision:
    if not family.branches:
        raise RoutingError("model_not_found", f"the catalogue leaves out every branch of {family.name}")
    branches = family.of_variant(variant_of(family, wishes, default_variant))
    if wishes.overrides:
        return _override(family, branches, wishes)
    if len(branches) == 1 or facts is None:
        return Decision(branches[0], "rule", "rule: the family has one branch")
    return _rule(branches, facts, ready)


def variant_of(family: Family, wishes: Wishes, default_variant: str | None = None) -> str | None:
    """Return the variant that serves these wishes; None if the family's variant has no name.

    Args:
        family: from the catalogue.
        wishes: as for `route`.
        default_variant: as for `route`.

    Raises:
        RoutingError: `invalid_parameter`: the family has no such variant.
    """
    if wishes.variant is not None:
        found = family.named(wishes.variant)
        if not found:
            known = ", ".join(family.variant_names) or "none"
            raise RoutingError(
                "invalid_parameter", f"{family.name} has no variant {wishes.variant[:100]!r}; it has {known}"
            )
        return found[0]
    if wishes.branch is not None:
        named = family.branch(wishes.branch)
        if named is not None:
            return named.variant
    return family.variant_or_default(default_variant)


def _override(family: Family, branches: tuple[Branch, ...], wishes: Wishes) -> Decision:
    if wishes.branch is not None and family.branch(wishes.branch) is None:
        names = ", ".join(branch.name for branch in nameable(branches))
        raise RoutingError(
            "model_not_found",
            f"{family.name} has no branch {wishes.branch[:100]!r}; it has {names}",
            wishes.branch,
        )
    if wishes.tier is not None and wishes.tier not in TIERS:
        raise RoutingError("invalid_parameter", f"a tier is one of {', '.join(TIERS)}")
    asked = {
        "branch": (wishes.branch, "name"),
        "tier": (wishes.tier, "tier"),
        "size": (wishes.size, "size"),
    }
    given = {key: value for key, (value, _) in asked.items() if value is not None}
    # A twin or an alternate is found by its name alone: its branch comes before it.
    for branch in nameable(branches):
        if all(getattr(branch, asked[key][1]) == value for key, value in given.items()):
            words = ", ".join(f"{key}={value}" for key, value in given.items())
            return Decision(branch, "override", f"override: {words}")
    if wishes.variant is not None:
        given["variant"] = wishes.variant
    named = None if wishes.branch is None else family.branch(wishes.branch)
    if named is not None and wishes.variant is not None and named not in nameable(branches):
        raise RoutingError(
            "invalid_parameter",
            f"{named.name} is a branch of {named.variant or STANDARD}, not of {wishes.variant}",
        )
    words = ", ".join(f"{key}={value}" for key, value in given.items())
    raise RoutingError("invalid_parameter", f"{family.name} has no branch with {words}")


def _rule(branches: tuple[Branch, ...], facts: FrameFacts, ready: Mapping[str, Readiness]) -> Decision:
    width, height = facts.analysis_size
    index = _tier_index(branches, max(width, height))
    why = f"rule: {_words(branches, index, f'max({width}, {height})')}"
    passed_over: list[PassedOver] = []
    while branches[index].when_ready and _state(ready, branches[index]) is not Readiness.READY:
        reason = _PASSED_OVER.get(_state(ready, branches[index]), "not ready")
        passed_over.append(PassedOver(branches[index].name, reason))
        why += f", {branches[index].tier} {reason}"
        index -= 1
    return Decision(branches[index], "rule", why, tuple(passed_over))


_PASSED_OVER = {state: ERROR_CODES[state][1] for state in (Readiness.MISSING, Readiness.OUT_OF_MEMORY)}


def _tier_index(branches: tuple[Branch, ...], side: int) -> int:
    return next(i for i, b in enumerate(branches) if b.max_side is None or side <= b.max_side)


def _words(branches: tuple[Branch, ...], index: int, side: str) -> str:
    lower = branches[index - 1].max_side if index else None
    upper = branches[index].max_side
    if lower is None:
        return f"{side} <= {upper}"
    return f"{side} > {lower}" if upper is None else f"{lower} < {side} <= {upper}"


def _fall_back(family: Family, meant: Decision, wishes: Wishes, ready: Mapping[str, Readiness]) -> Decision:
    """The next smaller branch of the same variant that is ready, if the caller allows one.

    For a twin it is a smaller twin before that one's branch; and before these its own branch, whose answer is the same.
    """
    state = _state(ready, meant.branch)
    code, words = ERROR_CODES[state]
    passed_over = [*meant.passed_over, PassedOver(meant.branch.name, words)]
    if wishes.fallback:
        for branch in _below(family, meant.branch):
            if _state(ready, branch) is Readiness.READY:
                why = f"fallback: {meant.branch.name} {words} ({meant.why})"
                return Decision(branch, "fallback", why, tuple(passed_over))
            passed_over.append(PassedOver(branch.name, ERROR_CODES[_state(ready, branch)][1]))
    raise RoutingError(code, f"{meant.branch.name}: {words} ({meant.why})", meant.branch.name)


def _below(family: Family, meant: Branch) -> list[Branch]:
    """Return the branches that may serve in place of `meant`, the best first."""
    branches = family.ladder(meant)
    smaller = tuple(branch for branch in branches if (branch.size or 0) < (meant.size or 0))
    if meant.twin_of is not None:
        smaller = with_twins(smaller)
    own = {meant.twin_of, meant.version_of}
    same = [branch for branch in nameable(branches) if branch.name in own]
    return [*same[::-1], *smaller[::-1]]


def _with_warnings(facts: FrameFacts | None, decision: Decision) -> Decision:
    least = decision.branch.min_short_side
    if facts is None or least is None:
        return decision
    shorter = min(facts.width, facts.height)
    if shorter >= least:
        return decision
    warning = f"shorter side {shorter} px is under the {least} px that this family wants"
    return Decision(decision.branch, decision.kind, decision.why, decision.passed_over, (warning,))


def _state(ready: Mapping[str, Readiness], branch: Branch) -> Readiness:
    return ready.get(branch.name, Readiness.MISSING)
