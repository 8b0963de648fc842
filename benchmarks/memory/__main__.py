"""Estimates of `gateway plan` beside measured memory, and plans for cards of several sizes.

    python -m benchmarks.memory --measure [--repository triton/models] [--write]    # minutes
    python -m benchmarks.memory --write                                             # the plans alone

Each branch runs in a process of its own, then all in one, on the embedded engine without its cache of graphs: a third
run is over when the memory is read. `--write` puts the tables into docs/memory.md, and the numbers into
docs/benchmarks/memory.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.commands.plan.command import RESERVE
from app.commands.plan.estimates import estimates
from app.commands.predict.repository import readiness
from benchmarks import ROOT
from benchmarks.memory import tables
from routing import catalogue as catalogues
from routing.catalogue import Branch
from routing.fit import Budget, plan
from routing.memory import ModelMemory, need
from routing.policy import Readiness
from routing.units import parse_size

CARDS = ("6GB", "8GB", "12GB", "24GB")
MARGIN = 0.1
JSON = ROOT / "docs" / "benchmarks" / "memory.json"


def main() -> int:
    """Measure, plan, print and write as the command line says."""
    options = _arguments()
    branches = _built(options.repository, options.variants.split(","))
    if not branches:
        print(f"no branch is built in {options.repository}: make models SET=baseline", file=sys.stderr)
        return 2
    known = estimates(branches, options.repository)
    document: dict[str, Any] = json.loads(JSON.read_text()) if JSON.is_file() else {}
    document["plans"] = [_planned(card, branches, known) for card in CARDS]
    if options.measure:
        document |= _measured(branches, options.repository)
    if "branches" in document:
        for row in document["branches"]:
            row.update(_estimated([branch for branch in branches if branch.name == row["name"]], known))
        document["together"] |= _estimated(branches, known)
    text = tables.markdown(document)
    print(text)
    if options.write:
        JSON.write_text(json.dumps(document, indent=1) + "\n")
        tables.replace(ROOT / "docs" / "memory.md", text)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", action="store_true", help="run every branch")
    parser.add_argument("--repository", type=Path, default=ROOT / "triton" / "models")
    parser.add_argument("--variants", default="x,small", help="variants of families that have several")
    parser.add_argument(
        "--write", action="store_true", help="write docs/memory.md and docs/benchmarks/memory.json"
    )
    return parser.parse_args()


def _built(repository: Path, variants: Sequence[str]) -> list[Branch]:
    return [
        branch
        for family in catalogues.load().families.values()
        for branch in family.branches
        if branch.variant is None or branch.variant in variants
        if readiness(repository, branch) is Readiness.READY
    ]


def _planned(card: str, branches: Sequence[Branch], known: Mapping[str, ModelMemory]) -> dict[str, Any]:
    memory = parse_size(card)
    budget = Budget(memory, parse_size(RESERVE["cuda"]), int(MARGIN * memory))
    made = plan(branches, known, budget)
    return {
        "card": card,
        "usable_bytes": budget.usable,
        "needed_bytes": made.together.total,
        "fits": [branch.name for branch in made.chosen],
        "left_out": {row.branch.name: row.missing for row in made.rows if not row.fits},
        "alone_bytes": {row.branch.name: row.alone.total for row in made.rows},
    }


def _measured(branches: Sequence[Branch], repository: Path) -> dict[str, Any]:
    rows = []
    for branch in branches:
        taken = _taken([branch], repository)
        rows.append({"name": branch.name, **taken})
        print(f"{branch.name}: {taken['taken_bytes'] >> 20} MiB", file=sys.stderr)
    return {"branches": rows, "together": {"name": "all", **_taken(branches, repository)}}


def _taken(branches: Sequence[Branch], repository: Path) -> dict[str, int]:
    """Memory after loading and after the runs, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory.child", str(repository), *(b.name for b in branches)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{branches[0].name}: {done.stderr[-2000:]}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _estimated(branches: Sequence[Branch], known: Mapping[str, ModelMemory]) -> dict[str, int]:
    models = [spec for branch in branches for spec in branch.models]
    estimate = need(models, known, "cpu")
    activations = (known[spec.name].activations for spec in models if spec.name in known)
    return {
        "weights_bytes": estimate.weights,
        "arena_bytes": estimate.activations,
        "activations_bytes": max(activations, default=0),
    }


if __name__ == "__main__":
    sys.exit(main())
