"""The results of a bulk run as its segments hold them: the newest row of each video counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from app.bulk.outcomes import Outcome
from app.bulk.rows import Rank, list_segments, read_rows
from app.videos.stores.base import ArtifactStore


@dataclass(slots=True)
class _Latest:
    """The ranks of the newest rows of one video."""

    newest: Rank
    worked: Rank | None


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
        recorded = cls(store, list_segments(store))
        for row in read_rows(store, recorded.segments):
            if row is None:
                recorded.damaged += 1
            else:
                recorded.rows += 1
                recorded._take(*row)
        return recorded

    def __len__(self) -> int:
        """Return the number of videos."""
        return len(self._videos)

    def _take(self, rank: Rank, outcome: Outcome) -> None:
        worked = rank if outcome.worked else None
        known = self._videos.get(outcome.name)
        if known is None:
            self._videos[outcome.name] = _Latest(rank, worked)
            return
        known.newest = max(known.newest, rank)
        if worked is not None:
            known.worked = worked if known.worked is None else max(known.worked, worked)

    def all(self) -> Iterator[Outcome]:
        """Yield every row, also those that newer ones of the same video replace."""
        return (outcome for _, outcome in self._again())

    def newest(self) -> Iterator[Outcome]:
        """Yield the newest row of each video."""
        for rank, outcome in self._again():
            if self._videos[outcome.name].newest == rank:
                yield outcome

    def worked(self) -> Iterator[Outcome]:
        """Yield for each video the newest row that tells of new artefacts, if it has one."""
        for rank, outcome in self._again():
            if self._videos[outcome.name].worked == rank:
                yield outcome

    def written(self, name: str) -> str | None:
        """Return when the artefacts of a video were written, as its rows say; None: no row says."""
        known = self._videos.get(name)
        return None if known is None or known.worked is None else known.worked[0]

    def _again(self) -> Iterator[tuple[Rank, Outcome]]:
        return (row for row in read_rows(self.store, self.segments) if row is not None)
