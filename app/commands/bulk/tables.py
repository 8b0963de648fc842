"""`gateway bulk tables`: the tables of a run, also while it goes on."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from app import extras
from app.bulk.rows import list_segments
from app.bulk.summary import NoRun, read_run
from app.bulk.tables.update import Tables, Updated
from app.commands.bulk.reading import FAILED, OK, USAGE, Ended, plainly, take_any_name
from app.families import FAMILIES
from app.videos.names import shown
from app.videos.stores.opened import open_store

_MB = 1 << 20
_UNNAMED = "run"


def tables(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    take_any_name()
    lacking = extras.missing("tables")
    if lacking is not None:
        print(f"gateway bulk tables: {lacking}", file=sys.stderr)
        return USAGE
    try:
        with plainly("tables", parsed.output):
            updated = _update(parsed.output, parsed.part_size * _MB)
    except Ended as ended:
        return ended.code
    if parsed.json:
        print(json.dumps(asdict(updated)))
    else:
        _say(updated)
    return FAILED if updated.waiting else OK


def _update(output: str, part_bytes: int) -> Updated:
    store = open_store(output)
    run = read_run(store)
    if run is None and not list_segments(store):
        raise NoRun(output)
    kinds = {component.name: component for component in FAMILIES.components}
    run_id = None if run is None else run.run_id
    return Tables(store, kinds, run_id or _UNNAMED, part_bytes=part_bytes).update()


def _say(updated: Updated) -> None:
    print(f"index.parquet: {updated.videos} videos")
    print(
        f"tables: {updated.finished} videos have artefacts, {updated.changed} of them were added or replaced now"
    )
    for name, reason in updated.reasons.items():
        print(f"waiting {shown(name)}: {shown(reason)}")
    if updated.waiting:
        print(f"{updated.waiting} videos are not in the tables; `gateway bulk tables` tries again")
    if updated.damaged:
        print(f"{updated.damaged} damaged rows of the run were passed over")
