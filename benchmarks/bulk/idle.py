"""A worker that analyses nothing, in a module of its own: worker processes import it."""

from __future__ import annotations

from dataclasses import dataclass

from app.bulk.entries import Entry
from app.bulk.outcomes import Outcome, now


@dataclass(frozen=True)
class MakeIdle:
    """Makes a worker that analyses nothing."""

    def __call__(self) -> MakeIdle:
        return self

    def analyse(self, entry: Entry, attempt: int) -> Outcome:
        """Answer at once."""
        at = now()
        return Outcome(
            entry.name, entry.uri, "done", attempts=attempt, frames=1, started_at=at, finished_at=at
        )

    def stop(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing is held."""
