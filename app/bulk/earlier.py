"""Videos that earlier runs over the same output have not finished."""

from __future__ import annotations

from app.bulk.outcomes import Outcome
from app.bulk.rows import Rank, list_segments, read_rows
from app.videos.stores.base import ArtifactStore

_UNFINISHED = ("failed", "poison")


def unfinished(store: ArtifactStore) -> dict[str, Outcome]:
    """Return the newest row of every video that failed or was set aside, by name. Lines that are damaged don't count.

    The rows are read twice, so that memory holds the videos that ever failed, and not the corpus.

    Raises:
        OSError: the store can't be read.
    """
    named = list_segments(store)
    found: dict[str, tuple[Rank, Outcome]] = {}
    for row in read_rows(store, named):
        if row is not None and row[1].state in _UNFINISHED and _is_newer(row, found):
            found[row[1].name] = row
    if found:
        for row in read_rows(store, named):
            if row is not None and row[1].name in found and _is_newer(row, found):
                del found[row[1].name]
    return {name: outcome for name, (_, outcome) in found.items()}


def _is_newer(row: tuple[Rank, Outcome], found: dict[str, tuple[Rank, Outcome]]) -> bool:
    """Return True if it is newer than the row of its video in `found`, or the first one."""
    known = found.get(row[1].name)
    return known is None or row[0] > known[0]
