"""The results of a bulk run as its segments hold them: the newest row of each video counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from types import NoneType

from app.bulk.outcomes import FOLDER, Outcome
from app.videos.stores.base import ArtifactStore, checked_name

_MOST, _MOST_ATTEMPTS = (1 << 53) - 1, (1 << 31) - 1
_TEXT = (str, NoneType)
_KINDS = {
    "name": (str,), "uri": (str,), "attempts": (int,), "frames": (int,), "seconds": (int, float),
    "bytes": (int, NoneType),
}  # fmt: skip


@dataclass(slots=True)
class _Latest:
    """The newest rows of one video: when each was finished, and its number among all rows."""

    newest: tuple[str, int]
    worked: tuple[str, int] | None


@dataclass(slots=True)
class Recorded:
    """All rows of an output at one moment.

    Memory holds a few numbers per video, never the rows: they are read again when they are asked for. `damaged` counts
    the lines that are no row, `rows` all others.
    """

    store: ArtifactStore
    segments: tuple[tuple[str, int], ...]
    rows: int = 0
    damaged: int = 0
    _videos: dict[str, _Latest] = field(default_factory=dict)

    @classmethod
    def of(cls, store: ArtifactStore) -> Recorded:
        """Read an output's segments.

        Raises:
            OSError: they can't be read.
        """
        found = sorted((stored.name, stored.nbytes) for stored in store.list(FOLDER))
        recorded = cls(store, tuple(pair for pair in found if pair[0].endswith(".jsonl")))
        for number, outcome in recorded._numbered(count=True):
            recorded._take(number, outcome)
        return recorded

    def __len__(self) -> int:
        """Return the number of videos."""
        return len(self._videos)

    def _take(self, number: int, outcome: Outcome) -> None:
        at = (outcome.finished_at or "", number)
        worked = at if outcome.worked else None
        known = self._videos.get(outcome.name)
        if known is None:
            self._videos[outcome.name] = _Latest(at, worked)
            return
        known.newest = max(known.newest, at)
        if worked is not None:
            known.worked = worked if known.worked is None else max(known.worked, worked)

    def all(self) -> Iterator[Outcome]:
        """Yield every row, also those that newer ones of the same video replace."""
        return (outcome for _, outcome in self._numbered())

    def newest(self) -> Iterator[Outcome]:
        """Yield the newest row of each video."""
        for number, outcome in self._numbered():
            if self._videos[outcome.name].newest[1] == number:
                yield outcome

    def worked(self) -> Iterator[Outcome]:
        """Yield for each video the newest row that tells of new artefacts, if it has one."""
        for number, outcome in self._numbered():
            worked = self._videos[outcome.name].worked
            if worked is not None and worked[1] == number:
                yield outcome

    def written(self, name: str) -> str | None:
        """Return when the artefacts of a video were written, as its rows say; None: no row says."""
        known = self._videos.get(name)
        return None if known is None or known.worked is None else known.worked[0]

    def _numbered(self, *, count: bool = False) -> Iterator[tuple[int, Outcome]]:
        number = 0
        for name, _ in self.segments:
            with self.store.open(name) as file:
                for line in file:
                    number += 1
                    outcome = _parsed(line)
                    if outcome is not None:
                        yield number, outcome
                    self.rows += count and outcome is not None
                    self.damaged += count and outcome is None


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
