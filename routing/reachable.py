"""The branches that `policy.route` can choose, and the order in which they are best loaded. Pure, like its room."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from routing.catalogue import Branch, Catalogue, Family, nameable, with_twins
from routing.policy import RoutingError, Wishes, variant_of


def reachable(
    family: Family, wishes: Wishes, default_variant: str | None = None, *, compact: bool = False
) -> tuple[Branch, ...]:
    """Return every branch that `policy.route` can choose for a frame of some size with these wishes.

    Args:
        family: from the catalogue.
        wishes: as for `route`; an unknown variant or branch reaches nothing.
        default_variant: as for `route`.
        compact: whether frames may travel as UINT8; then twins are reachable too.
    """
    named = None if wishes.branch is None else family.branch(wishes.branch)
    if wishes.branch is not None and named is None:
        return ()
    try:
        branches = family.of_variant(variant_of(family, wishes, default_variant))
    except RoutingError:
        return ()
    if named is not None and named in nameable(branches):
        branches = family.ladder(named)
    if wishes.overrides:
        branches = _chosen(branches, named, wishes)
    if wishes.version is not None:
        branches = _in_version(branches, wishes)
    return with_twins(branches) if compact and named is None else branches


def _in_version(branches: tuple[Branch, ...], wishes: Wishes) -> tuple[Branch, ...]:
    """The branches in the version that is asked for, and what may stand in for it; the default one may be it, too."""
    others = tuple(one for branch in branches for one in branch.versions if one.version == wishes.version)
    return (*branches, *others) if wishes.fallback or not others else others


def with_further_versions(branches: Iterable[Branch]) -> tuple[Branch, ...]:
    """Return the branches, each followed by its further versions: they are loaded with it."""
    return tuple(one for branch in branches for one in (branch, *branch.versions))


def _chosen(branches: tuple[Branch, ...], named: Branch | None, wishes: Wishes) -> tuple[Branch, ...]:
    """The branch that the wishes name, and what may stand in for it."""
    candidates = branches if named is None else with_twins(branches)
    named_ones = candidates if named is None else with_twins(with_further_versions(branches))
    chosen = [
        branch
        for branch in named_ones
        if (wishes.branch in (None, branch.name))
        and (wishes.tier in (None, branch.tier))
        and (wishes.size in (None, branch.size))
    ]
    if not chosen or not wishes.fallback:
        return tuple(chosen)
    largest = chosen[-1]
    smaller = [branch for branch in candidates if (branch.size or 0) < (largest.size or 0)]
    same = [branch for branch in candidates if branch.name in (largest.twin_of, largest.version_of)]
    return (*smaller, *same, *chosen)


@dataclass(frozen=True, slots=True)
class Service:
    """Settings of a service that concern the requests it serves.

    `variant` and `compact` as for `reachable`; `required` are names of branches that must be READY in any case;
    `there` are the branches that somebody has built.
    """

    variant: str | None = None
    compact: bool = False
    required: frozenset[str] = frozenset()
    there: frozenset[str] = frozenset()


def of_service(catalogue: Catalogue, service: Service) -> tuple[Branch, ...]:
    """Return the branches that requests reach without naming one, and those that are required, in loading order.

    Where nobody has built a family's default variant, its other variants come too: requests can name them. So do the
    variants of a user's own catalogue, which were added to be named.
    """
    found: set[str] = set(service.required)
    for family in catalogue.families.values():
        usual = reachable(family, Wishes(), service.variant, compact=service.compact)
        if service.there.isdisjoint(branch.name for branch in usual):
            others = with_twins(family.branches) if service.compact else family.branches
            usual = (*usual, *(branch for branch in others if branch.name in service.there))
        own = (branch for branch in family.branches if branch.own and branch.twin_of is None)
        found |= {branch.name for branch in with_further_versions((*usual, *own))}
    return loading_order(catalogue, (catalogue.branches[name] for name in found), service.variant)


def loading_order(
    catalogue: Catalogue, branches: Iterable[Branch], variant: str | None = None
) -> tuple[Branch, ...]:
    """Return the branches so that what most requests need comes first.

    First the branch that most frames of each family take, family by family; then the others of the default variants
    from small to large, then other variants; twins, alternates and further versions come last.
    """
    wanted = tuple(branches)
    families = {name: place for place, name in enumerate(catalogue.families)}
    first = {
        default_branch(family, variant).name for family in catalogue.families.values() if family.branches
    }

    def rank(branch: Branch) -> tuple[bool, bool, bool, int, int, str]:
        usual = catalogue[branch.family].variant_or_default(variant) == branch.variant
        place = families[branch.family]
        return (
            (branch.twin_of, branch.alternate_of, branch.version_of) != (None, None, None),
            not usual,
            branch.name not in first,
            *((place, 0) if branch.name in first else (branch.size or 0, place)),
            branch.name,
        )

    return tuple(sorted(wanted, key=rank))


def default_branch(family: Family, variant: str | None = None) -> Branch:
    """Return the branch that a large frame takes as long as nothing optional is ready.

    That is the largest one that routing doesn't pass over while it loads.
    """
    branches = family.of_variant(family.variant_or_default(variant))
    return [branch for branch in branches if not branch.when_ready][-1]
