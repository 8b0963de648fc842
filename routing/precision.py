"""Branches in half precision beside those in single precision, and the precision that routing prefers.

An FP16 branch has the tensors of its FP32 branch and the same preprocess graph; only the model with the weights is
another one. Pure, like its room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

from routing.catalogue import Branch, Catalogue, CatalogueError, Family, ModelSpec, Precision

SUFFIX = "_fp16"
ADVICE = "`make models PRECISION=fp16` or `gateway up` builds some"


def convertible(branch: Branch) -> bool:
    """Tell if a branch may have an FP16 one: not where another program made the model."""
    return branch.precision == "fp32" and not any(model.mapped for model in branch.models)


def in_fp16(branch: Branch) -> Branch:
    """Return the FP16 branch of an FP32 one: `<name>_fp16`, and its twin."""
    other = copied(branch, f"{branch.name}{SUFFIX}")
    compact = other.compact
    if compact is not None and branch.compact is not None:
        compact = replace(compact, precision="fp16", alternate_of=branch.compact.name)
    return replace(
        other, compact=compact, required=False, precision="fp16", alternate=None, alternate_of=branch.name
    )


def copied(branch: Branch, name: str) -> Branch:
    """Return the branch and its twin under another name, over models of their own; preprocess graphs are shared."""
    models = tuple(_renamed(model, branch.name, name) for model in branch.models)
    compact = branch.compact
    if compact is not None:
        compact = replace(
            compact,
            name=compact.name.replace(branch.name, name, 1),
            models=(_renamed(compact.models[0], branch.name, name), compact.models[1], *models),
            twin_of=name,
            versions=(),
        )
    return replace(branch, name=name, models=models, compact=compact, alternate=None, versions=())


def _renamed(model: ModelSpec, branch: str, name: str) -> ModelSpec:
    """The model under the other branch's name; a preprocess graph has no weights and serves both."""
    return model if model.kind == "preprocess" else replace(model, name=model.name.replace(branch, name, 1))


def with_fp16(family: Family, chosen: Callable[[Branch], bool]) -> Family:
    """Return the family with an FP16 branch beside each chosen one that may have one."""
    branches = tuple(
        replace(branch, alternate=in_fp16(branch)) if convertible(branch) and chosen(branch) else branch
        for branch in family.branches
    )
    return replace(family, branches=branches)


def preferring(catalogue: Catalogue, precision: Precision) -> Catalogue:
    """Return the catalogue whose routing takes the branches of this precision where both are there.

    The others keep their names: callers may still ask for them.

    Args:
        catalogue: as it was loaded; its routing takes FP32.
        precision: the preferred one.

    Raises:
        CatalogueError: FP16 is preferred, and no branch is there in FP16.
    """
    if precision == "fp32":
        return catalogue
    families = {
        name: replace(family, branches=tuple(map(_swapped, family.branches)))
        for name, family in catalogue.families.items()
    }
    if all(branch.precision != precision for family in families.values() for branch in family.branches):
        raise CatalogueError(
            f"GATEWAY_PRECISION={precision}: no branch of the catalogue has this precision; {ADVICE}"
        )
    return Catalogue(MappingProxyType(families))


def _swapped(branch: Branch) -> Branch:
    """The alternate in the place of its branch, which becomes the alternate."""
    other = branch.alternate
    if other is None:
        return branch
    compact, twin = branch.compact, other.compact
    if compact is not None and twin is not None:
        compact, twin = replace(compact, alternate_of=twin.name), replace(twin, alternate_of=None)
    spare = replace(branch, compact=compact, required=False, alternate=None, alternate_of=other.name)
    kept = {key: getattr(branch, key) for key in ("required", "max_side", "when_ready")}
    return replace(other, compact=twin, alternate=spare, alternate_of=None, **kept)
