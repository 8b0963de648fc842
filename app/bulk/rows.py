"""Rows of all runs over an output, as its segments hold them, and the rule which row of a video is the newest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import fields
from types import NoneType

from app.bulk.outcomes import FOLDER, Outcome
from app.videos.stores.base import ArtifactStore, checked_name

# Of two rows of a video, the one of the higher rank counts: it was finished later, or at the same time and read later.
Rank = tuple[str, int]

_MOST, _MOST_ATTEMPTS = (1 << 53) - 1, (1 << 31) - 1
_TEXT = (str, NoneType)
_KINDS = {
    "name": (str,), "uri": (str,), "attempts": (int,), "frames": (int,), "seconds": (int, float),
    "bytes": (int, NoneType),
}  # fmt: skip


def list_segments(store: ArtifactStore) -> tuple[tuple[str, int], ...]:
    """Return the names and sizes of the segments that are published now, in the order in which `read_rows` reads them.

    Raises:
        OSError: the store can't be read.
    """
    found = sorted((stored.name, stored.nbytes) for stored in store.list(FOLDER))
    return tuple(pair for pair in found if pair[0].endswith(".jsonl"))


def read_rows(
    store: ArtifactStore, named: tuple[tuple[str, int], ...]
) -> Iterator[tuple[Rank, Outcome] | None]:
    """Yield every row of segments with its rank; None for a line that is damaged.

    Raises:
        OSError: a segment can't be read.
    """
    number = 0
    for name, _ in named:
        with store.open(name) as file:
            for line in file:
                number += 1
                outcome = _parsed(line)
                yield None if outcome is None else ((outcome.finished_at or "", number), outcome)


def _parsed(line: bytes) -> Outcome | None:
    with contextlib.suppress(ValueError, RecursionError):
        outcome = Outcome.from_json(line)
        if _is_right(outcome):
            return outcome
    return None


def _is_right(outcome: Outcome) -> bool:
    """Check all fields, and the name: a line that was damaged or edited may hold anything."""
    values = {one.name: getattr(outcome, one.name) for one in fields(outcome)}
    if not all(type(value) in _KINDS.get(name, _TEXT) for name, value in values.items()):
        return False
    numbers = (value for value in values.values() if isinstance(value, int | float))
    if outcome.attempts > _MOST_ATTEMPTS or not all(0 <= number <= _MOST for number in numbers):
        return False
    try:
        checked_name(outcome.name)
        for value in values.values():
            if isinstance(value, str):
                value.encode()  # no lone surrogates, which no table takes
    except (OSError, UnicodeEncodeError):
        return False
    return True
