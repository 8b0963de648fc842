"""The forms in which `gateway plan` prints a plan."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from routing.fit import Plan, Row
from routing.memory import lease_bytes
from routing.units import format_size

_HEAD = ("branch", "tier", "checklist", "weights", "activations", "workspace", "alone", "added", "fits")


def lines(made: Plan, form: str, *, device: str, leases: int) -> Iterator[str]:
    """The lines of a plan in one of the formats of the options."""
    if form == "json":
        yield json.dumps(document(made, device=device, leases=leases), indent=2)
    elif form == "triton-args":
        yield " ".join(f"--load-model={branch.name}" for branch in made.chosen)
    elif form == "names":
        yield from (branch.name for branch in made.chosen)
    else:
        yield from _table(made, device=device, leases=leases)


def document(made: Plan, *, device: str, leases: int) -> dict[str, Any]:
    """Every number of a plan, in bytes."""
    budget = made.budget
    return {
        "estimate": True,
        "device": device,
        "memory_bytes": budget.memory,
        "reserve_bytes": budget.reserve,
        "margin_bytes": budget.margin,
        "usable_bytes": budget.usable,
        "needed_bytes": made.together.total,
        "left_bytes": made.left,
        "leases": leases,
        "lease_bytes": _host(made, leases),
        "load_models": [branch.name for branch in made.chosen],
        "branches": [_row(row) for row in made.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    branch, alone = row.branch, row.alone
    known = not alone.unknown
    return {
        "name": branch.name,
        "family": branch.family,
        "tier": branch.tier,
        "size": branch.size,
        "required": branch.required,
        "weights_bytes": alone.weights if known else None,
        "activations_bytes": alone.activations if known else None,
        "workspace_bytes": alone.workspace if known else None,
        "total_bytes": alone.total if known else None,
        "added_bytes": row.added if known else None,
        "missing_bytes": row.missing,
        "fits": row.fits,
        "models_without_estimate": list(alone.unknown),
    }


def _host(made: Plan, leases: int) -> int:
    return leases * sum(lease_bytes(branch) for branch in made.chosen)


def _table(made: Plan, *, device: str, leases: int) -> Iterator[str]:
    budget = made.budget
    yield (
        f"{format_size(budget.memory)} of memory, {format_size(budget.reserve)} reserved, "
        f"{format_size(budget.margin)} kept free: {format_size(budget.usable)} for models ({device}; estimates)"
    )
    yield ""
    rows = [_HEAD, *(_cells(row) for row in made.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        cells = [
            cell.rjust(width) if 3 <= column < len(_HEAD) - 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    yield ""
    yield (
        f"{len(made.chosen)} of {len(made.rows)} branches fit: {format_size(made.together.total)} needed, "
        f"{format_size(max(0, made.left))} left"
    )
    yield f"beside that, {format_size(_host(made, leases))} of host memory for {leases} leases per branch"


def _cells(row: Row) -> tuple[str, ...]:
    branch, alone = row.branch, row.alone
    checklist = "required" if branch.required else "optional"
    if row.missing is None:
        return branch.name, branch.tier or "", checklist, "", "", "", "", "", f"no estimate: {_why(row)}"
    sizes = (alone.weights, alone.activations, alone.workspace, alone.total, row.added)
    fits = "yes" if row.fits else f"no, {format_size(row.missing)} short"
    return branch.name, branch.tier or "", checklist, *map(format_size, sizes), fits


def left_out(made: Plan) -> Iterator[str]:
    """A line for each branch that doesn't fit."""
    for row in made.rows:
        if not row.fits:
            yield f"left out: {row.branch.name}: {_cells(row)[-1]}"


def _why(row: Row) -> str:
    return f"{', '.join(row.alone.unknown)} isn't built, or was built by others"
