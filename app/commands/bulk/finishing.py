"""The tables at the end of a run."""

from __future__ import annotations

from app.bulk.tables.update import Tables
from app.families import FAMILIES
from app.videos.stores.base import ArtifactStore

_PATIENCE_S = 300.0  # for other parts of a corpus that end at the same time
_AGAIN = "`gateway bulk tables` tries again"


def write_tables(store: ArtifactStore, run_id: str) -> str:
    """Bring the tables of an output up to date; return a line about it."""
    kinds = {component.name: component for component in FAMILIES.components}
    try:
        updated = Tables(store, kinds, run_id).update(_PATIENCE_S)
    except OSError as error:
        return f"tables: not written: {error.strerror or 'the output cannot be used'}; {_AGAIN}"
    waiting = f"; {updated.waiting} could not be taken: {_AGAIN}" if updated.waiting else ""
    return f"tables: {updated.changed} videos were added or replaced{waiting}"
