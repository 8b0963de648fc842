"""Videos that earlier runs over the same output have not finished."""

from __future__ import annotations

from app.bulk.outcomes import FOLDER, Outcome
from app.videos.stores.base import ArtifactStore


def unfinished(store: ArtifactStore) -> dict[str, Outcome]:
    """Return the latest row of every video that failed or was set aside, by name. Lines that are damaged don't count.

    The memory that this takes grows with those videos, not with the corpus.

    Raises:
        OSError: the store can't be read.
    """
    found: dict[str, Outcome] = {}
    segments = sorted(
        stored.name for stored in store.list(FOLDER)
    )  # the names begin with the time of the run
    for segment in segments:
        with store.open(segment) as file:
            for line in file:
                _note(found, line)
    return found


def _note(found: dict[str, Outcome], line: bytes) -> None:
    try:
        outcome = Outcome.from_json(line)
    except ValueError:
        return
    if outcome.state in ("failed", "poison"):
        found[outcome.name] = outcome
    else:
        found.pop(outcome.name, None)
