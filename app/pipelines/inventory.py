"""The catalogue with readiness, the READY checklist, and the decision that routing would make."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from app.engine.base import ModelState
from app.errors import GatewayError
from app.pipelines.base import Router
from routing.catalogue import Branch, Catalogue, Family, Prepare, TensorSpec
from routing.memory import Device, lease_bytes, need
from routing.policy import FrameFacts, Readiness, Wishes
from routing.rollout import base_of


def branches(
    router: Router, size: tuple[int, int] | None, wishes: Wishes, required: Collection[str] = ()
) -> dict[str, Any]:
    """Return the catalogue with readiness and weights.

    Args:
        router: whose engine is asked.
        size: a frame's `(width, height)`: then also what each family would do with it.
        wishes: of that frame.
        required: names of the branches that `/readyz` waits for.
    """
    states = router.engine.ready()
    families = []
    for family in router.catalogue.families.values():
        described = _family(router, family, states, required)
        if size is not None:
            described["route"] = decision(router, family, FrameFacts(*size), wishes)
        families.append(described)
    for described in families:
        for branch in described["branches"]:
            branch.update(_at_endpoints(router, branch["name"]))
    return {"engine": router.engine.name, "families": families, **_endpoints(router)}


def decision(router: Router, family: Family, facts: FrameFacts, wishes: Wishes) -> dict[str, Any]:
    """Return the decision of routing about a frame: a branch with its reason, or an error with its code."""
    if wishes.variant is not None and not family.named(wishes.variant):  # it is another family's
        wishes = dataclasses.replace(wishes, variant=None)
    try:
        decided = router.decide(family.name, facts, wishes)
    except GatewayError as error:
        return {"error": {"code": error.code, "detail": error.detail}}
    return {
        "branch": decided.branch.name,
        "kind": decided.kind,
        "why": decided.why,
        "passed_over": [dataclasses.asdict(passed) for passed in decided.passed_over],
        "degraded": decided.degraded,
        "warnings": list(decided.warnings),
    }


def repository(router: Router, required: Sequence[str] = ()) -> dict[str, Any]:
    """Return the models that count, each with its place on the READY checklist and whether `/readyz` waits for it.

    `required`, `optional`, `missing` and `checklist_ready` are of the READY checklist; `models` has everything that is
    on it, that is required, or that is READY.

    Args:
        router: whose engine is asked.
        required: shell patterns of branches, see `required_branches`.
    """
    states = router.engine.ready()
    checklist = router.catalogue.checklist(router.variant or "")
    must = required_models(router.catalogue, required)
    lists = {
        key: [_row(states[n]) for n, on in checklist.items() if on == key] for key in ("required", "optional")
    }
    missing = [row["name"] for row in lists["required"] if row["readiness"] != Readiness.READY]
    named = [name for name in states if name in checklist or name in must or states[name].ready]
    return {
        "engine": router.engine.name,
        "models": [
            {
                **_row(states[name]),
                "required": name in must,
                "checklist": checklist.get(name),
                **_at_endpoints(router, name),
            }
            for name in sorted(named)
        ],
        "checklist_ready": not missing,
        "missing": missing,
        **lists,
        "others_ready": [_row(states[n]) for n in sorted(states) if n not in checklist and states[n].ready],
        **_endpoints(router),
    }


def _endpoints(router: Router) -> dict[str, Any]:
    """Return the servers, where there are several, with what is in flight there."""
    if not router.engine.endpoints():
        return {}
    rows = [
        {
            "endpoint": name, "connected": one.connected, "transport": one.transport, "in_flight": one.in_flight,
            "moved_runs": one.moved,
        }
        for name, one in router.engine.usage().endpoints.items()
    ]  # fmt: skip
    return {"endpoints": rows}


def _at_endpoints(router: Router, name: str) -> dict[str, Any]:
    """Return the state of a model on each server, where there are several, and if their weights differ."""
    states = {endpoint: view[name] for endpoint, view in router.engine.endpoints().items()}
    if not states:
        return {}
    rows = [
        {
            "endpoint": endpoint, "readiness": state.readiness, "reason": state.reason, "version": state.version,
            "weights": state.weights.kind, "weights_digest": state.weights.digest, "device": state.device,
        }
        for endpoint, state in states.items()
    ]  # fmt: skip
    kinds = {(one.version, one.weights.digest, one.preprocess_digest) for one in states.values() if one.ready}
    return {"endpoints": rows, "weights_differ": len(kinds) > 1}


def patterns(text: str) -> list[str]:
    """Shell patterns of branches, separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def matching(catalogue: Catalogue, patterns: Sequence[str]) -> list[Branch]:
    """The branches and twins that one of the shell patterns names."""
    return [
        branch
        for name, branch in catalogue.branches.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]


def required_branches(catalogue: Catalogue, required: Sequence[str]) -> set[str]:
    """Names of the branches that `GATEWAY_REQUIRE_READY` asks for.

    Args:
        catalogue: of all branches.
        required: shell patterns; `checklist` stands for the required ones of the READY checklist.
    """
    return {
        name
        for name, branch in catalogue.branches.items()
        if any(branch.required if p == "checklist" else _names(p, branch) for p in required)
    }


def required_models(catalogue: Catalogue, required: Sequence[str]) -> set[str]:
    """The models of `required_branches`."""
    must = required_branches(catalogue, required)
    return {model.name for name in must for model in catalogue.branches[name].models}


def _names(pattern: str, branch: Branch) -> bool:
    """Match a twin, an alternate or a further version only by its full name: its branch serves the same requests."""
    if (branch.twin_of, branch.alternate_of, branch.version_of) != (None, None, None):
        return pattern == branch.name
    return fnmatch.fnmatchcase(branch.name, pattern)


def _row(state: ModelState) -> dict[str, Any]:
    return {
        "name": state.name,
        "readiness": state.readiness,
        "reason": state.reason,
        "version": state.version,
    }


def _family(
    router: Router, family: Family, states: Mapping[str, ModelState], required: Collection[str]
) -> dict[str, Any]:
    return {
        "name": family.name,
        "title": family.title,
        "component": family.component,
        "variants": list(family.variant_names),
        "default_variant": family.variant_or_default(router.variant),
        "min_short_side": family.min_short_side,
        "prepare": None if family.prepare is None else _prepare(family.prepare),
        "branches": [
            _branch(branch, states, required) | {"versions": _versions(router, family, branch, states)}
            for branch in family.every_branch
        ],
    }


def _prepare(prepare: Prepare) -> dict[str, Any]:
    """The rule, and under `fits` what a caller may ask for."""
    return {**dataclasses.asdict(prepare), "fits": list(prepare.fits)}


def _branch(branch: Branch, states: Mapping[str, ModelState], required: Collection[str]) -> dict[str, Any]:
    state = states[branch.name]
    weights = state.weights
    return {
        "name": branch.name,
        "tier": branch.tier,
        "size": branch.size,
        "variant": branch.variant,
        "max_side": branch.max_side,
        "model_size": branch.model_size,
        "required": branch.name in required,
        "checklist": "required" if branch.required else "optional",
        "when_ready": branch.when_ready,
        "classes": len(branch.labels) or None,
        "own": branch.own,
        "twin_of": branch.twin_of,
        "precision": branch.precision,
        "alternate_of": branch.alternate_of,
        "version_of": branch.version_of,
        "readiness": state.readiness,
        "reason": state.reason,
        "weights": weights.kind,
        "weights_digest": weights.digest,
        "weights_source": weights.source,
        "device": state.device,
        "inputs": [_tensor(spec) for spec in branch.inputs],
        "outputs": [_tensor(spec) for spec in branch.outputs],
        "models": [_row(states[model.name]) for model in branch.models],
        "memory": _memory(branch, states),
    }


def _versions(
    router: Router, family: Family, branch: Branch, states: Mapping[str, ModelState]
) -> list[dict[str, Any]]:
    """The versions of the branch that a further version belongs to, the default one first."""
    default = branch if branch.version_of is None else family.branch(branch.version_of) or branch
    rollout = router.rollouts.get(base_of(default))
    found = []
    for one in (default, *default.versions):
        state = states[one.name]
        version = one.version or state.version
        if one is not default and version == states[default.name].version:
            continue  # it has just become the default one
        rolled = rollout is not None and rollout.version == version and one is not default
        found.append(
            {
                "version": version,
                "branch": one.name,
                "default": one is default,
                "readiness": state.readiness,
                "reason": state.reason,
                "weights_digest": state.weights.digest,
                "rollout": rollout.percent if rollout is not None and rolled else None,
            }
        )
    return found


def _memory(branch: Branch, states: Mapping[str, ModelState]) -> dict[str, Any] | None:
    """The estimate for the branch alone; None if one of its models has none."""
    device: Device = "cpu" if states[branch.name].device == "cpu" else "cuda"
    estimates = {spec.name: states[spec.name].weights.memory for spec in branch.models}
    needed = need(branch.models, {name: one for name, one in estimates.items() if one is not None}, device)
    if needed.unknown:
        return None
    return {
        "device": device,
        "weights_bytes": needed.weights,
        "activations_bytes": needed.activations,
        "workspace_bytes": needed.workspace,
        "total_bytes": needed.total,
        "lease_bytes": lease_bytes(branch),
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
