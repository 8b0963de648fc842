"""Run `gateway plan`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from app.commands.plan import printing
from app.commands.plan.estimates import estimates
from app.commands.predict.errors import CommandFailed
from app.commands.predict.repository import default_variant, find, readiness
from app.hints import did_you_mean
from app.pipelines import inventory
from app.process import gpus
from app.process.catalogue import load_catalogue
from app.settings import Settings
from routing.catalogue import Branch, Catalogue
from routing.fit import Budget, Plan, plan
from routing.policy import Readiness
from routing.units import parse_size

RESERVE = {"cuda": "640MiB", "cpu": "320MiB"}
FAILED, USAGE = 1, 2


def run(parsed: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    settings = Settings(engine="embedded")
    try:
        made = make(parsed, settings)
    except CommandFailed as error:
        print(f"gateway plan: {error}", file=sys.stderr)
        return USAGE
    for line in printing.lines(made, parsed.format, device=parsed.device, leases=settings.leases):
        print(line)
    if parsed.format not in ("table", "json"):
        for line in printing.left_out(made):
            print(f"gateway plan: {line}", file=sys.stderr)
    short = [row.branch.name for row in made.rows if row.branch.required and not row.fits]
    if made.chosen and not short:
        return 0
    said = f"required branches don't fit ({', '.join(short)})" if short else "no branch fits"
    print(
        f"gateway plan: {said}; --branches chooses others, --margin and --reserve free memory",
        file=sys.stderr,
    )
    return FAILED


def make(parsed: argparse.Namespace, settings: Settings) -> Plan:
    """Make the plan that the command line asks for.

    Raises:
        CommandFailed: there are no models, no such branches, or the memory isn't known.
    """
    catalogue = load_catalogue(settings)
    repository = find(parsed.repository, settings)
    branches = wanted(catalogue, repository, settings, parsed.branches)
    memory = parsed.memory or total_memory(parsed.device)
    reserve = parsed.reserve or parse_size(RESERVE[parsed.device])
    budget = Budget(memory, reserve, int(memory * parsed.margin))
    known = estimates(branches, repository)
    return plan(branches, known, budget, parsed.device, parsed.instances)


def wanted(
    catalogue: Catalogue, repository: Path, settings: Settings, patterns: str | None
) -> Sequence[Branch]:
    """Return the branches to choose from.

    Raises:
        CommandFailed: a pattern names none, or none is built.
    """
    if patterns is None:
        branches = [
            branch
            for family in catalogue.families.values()
            for branch in family.of_variant(default_variant(repository, family, settings))
            if readiness(repository, branch) is Readiness.READY
        ]
        if not branches:
            raise CommandFailed(
                f"no branch is built in {repository}; --branches names some, --repository another folder"
            )
        return branches
    if not inventory.patterns(patterns):
        raise CommandFailed("--branches: names no branch")
    for pattern in inventory.patterns(patterns):
        if not inventory.matching(catalogue, [pattern]):
            hint = did_you_mean(pattern, catalogue.branches)
            raise CommandFailed(f"--branches: no branch is called {pattern[:80]}{hint}")
    return inventory.matching(catalogue, inventory.patterns(patterns))


def total_memory(device: str) -> int:
    """Memory of the device in bytes.

    Raises:
        CommandFailed: there is no such device here.
    """
    if device == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = gpus.found()
    if not found:
        raise CommandFailed(
            "--memory: say how much the device has, such as 6GiB; nvidia-smi reports no GPU here"
        )
    return found[0].total
