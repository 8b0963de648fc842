"""`gateway doctor`: look at everything, print a table, and say by the exit code if anything asked for fails."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from app.commands.doctor import host, installed, models
from app.commands.doctor.report import Row, document, healthy, table
from app.commands.predict.command import key_of
from app.commands.predict.errors import CommandFailed
from app.commands.predict.printing import plain
from app.process import preflight
from app.process.catalogue import load_catalogue
from app.settings import Settings, environment, unknown_variables

WELL, ILL, USAGE = 0, 1, 2


def doctor(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    try:
        rows = list(_rows(parsed))
    except CommandFailed as error:
        print(f"gateway doctor: {plain(str(error))}", file=sys.stderr)
        return USAGE
    print(json.dumps(document(rows)) if parsed.json else table(rows))
    return WELL if healthy(rows) else ILL


def _rows(parsed: argparse.Namespace) -> Iterator[Row]:
    settings = Settings()
    yield from installed.rows(settings)
    yield from installed.runtime(settings)
    yield from _settings(settings)
    yield from models.rows(parsed.repository, settings, quick=parsed.quick)
    yield from host.rows(settings)
    if parsed.url is not None:
        yield from host.gateway(parsed.url, key_of(parsed), parsed.cacert)


def _settings(settings: Settings) -> Iterator[Row]:
    """Return the faults and warnings that `gateway serve` would report."""
    faults = [
        *unknown_variables(environment()),
        *preflight.faults(settings, load_catalogue(settings)),
    ]
    for fault in faults:
        name, _, said = fault.partition(": ")
        yield Row("setting", name, "failed", said or fault, "`gateway config` prints the settings in force")
    for warning in preflight.warnings(settings):
        yield Row("setting", "", "warning", warning)
    if not faults:
        yield Row(
            "setting",
            "all",
            "ok",
            f"{len(settings.model_fields_set)} are set, the others have their defaults",
        )
