"""Choose the branches that fit into a device's memory, by estimates. Pure: the same arguments give the same plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from routing.catalogue import TIERS, Branch, ModelSpec
from routing.memory import Device, ModelMemory, Need, need


@dataclass(frozen=True, slots=True)
class Budget:
    """Memory of a device in bytes. `reserve` is for its own use and for other programs; `margin` stays free."""

    memory: int
    reserve: int
    margin: int

    @property
    def usable(self) -> int:
        return max(0, self.memory - self.reserve - self.margin)


@dataclass(frozen=True, slots=True)
class Row:
    """One branch of a plan.

    `alone` is what it needs without others, `added` what it adds to the branches that fit before it. `missing` bytes
    keep it out; 0: it fits. None: it has no estimate, so it is left out.
    """

    branch: Branch
    alone: Need
    added: int
    missing: int | None

    @property
    def fits(self) -> bool:
        return self.missing == 0


@dataclass(frozen=True, slots=True)
class Plan:
    """The branches by priority, and what those that fit need together."""

    budget: Budget
    rows: tuple[Row, ...]
    together: Need

    @property
    def chosen(self) -> tuple[Branch, ...]:
        return tuple(row.branch for row in self.rows if row.fits)

    @property
    def left(self) -> int:
        """Bytes that stay free beside the margin."""
        return self.budget.usable - self.together.total


def plan(
    branches: Iterable[Branch],
    known: Mapping[str, ModelMemory],
    budget: Budget,
    device: Device = "cuda",
    instances: int = 1,
) -> Plan:
    """Take branches by priority as long as they fit; one that doesn't is passed over, and smaller ones still may.

    Args:
        branches: to choose from.
        known: estimates by model.
        budget: the device's memory.
        device: of the models.
        instances: see `routing.memory.need`.
    """
    models: list[ModelSpec] = []
    rows = []
    for branch in by_priority(branches):
        alone = need(branch.models, known, device, instances)
        before = need(models, known, device, instances).total
        after = need([*models, *branch.models], known, device, instances).total
        missing = None if alone.unknown else max(0, after - budget.usable)
        if missing == 0:
            models.extend(branch.models)
        rows.append(Row(branch, alone, after - before, missing))
    return Plan(budget, tuple(rows), need(models, known, device, instances))


def by_priority(branches: Iterable[Branch]) -> Sequence[Branch]:
    """Required branches of the READY checklist first, then tier by tier from small to large.

    A larger branch is of little use without the smaller ones of its variant, which serve smaller frames.
    """
    return sorted(branches, key=_priority)


def _priority(branch: Branch) -> tuple[bool, int, int, str]:
    tier = 0 if branch.tier is None else TIERS.index(branch.tier)
    return not branch.required, tier, branch.size or 0, branch.name
