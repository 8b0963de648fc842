"""The seam between a run and the processes that analyse its videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from app.bulk.attempts import Attempts
from app.bulk.entries import Entry
from app.bulk.outcomes import Outcome, unread

POISON = "worker_killed"


class Stopped(Exception):
    """The worker was told to stop before the video was finished; what is done is kept."""


class Worker(Protocol):
    """Analyses one video after another, in a process of its own."""

    def analyse(self, entry: Entry, attempt: int) -> Outcome:
        """Return the result of one video; whatever is wrong with the video is part of the result.

        Raises:
            Stopped: see `stop`.
            RuntimeError: no video can be analysed with these settings on this machine; the run ends.
        """

    def stop(self) -> None:
        """End the video under way and refuse others; from any thread."""

    def close(self) -> None:
        """Release the models."""


MakeWorker = Callable[[], Worker]
"""Makes the worker, once per process. It can be pickled and is small."""


class Executor(Protocol):
    """Runs the videos of a run on some processes."""

    def run(self, entries: Iterable[Entry], make: MakeWorker, attempts: Attempts) -> Iterator[Outcome]:
        """Yield results in the order in which they come; take entries only as workers become free.

        An entry whose worker dies is tried again. One that has killed two workers is `set_aside`. Before an entry is
        handed to a worker it is counted with `attempts.begin`, and `attempts.killed` counts its worker's death.

        Raises:
            RuntimeError: no video can be analysed, see `Worker.analyse`.
        """

    def stop(self) -> None:
        """Begin no further video and end those under way; `run` then ends. From any thread."""

    def close(self) -> None:
        """End the processes."""


def set_aside(entry: Entry, attempts: int, last: str) -> Outcome:
    """Return the row of a video that has killed two workers; `last` says how the last one ended."""
    return unread(
        entry, "poison", POISON, f"two workers died with this video; the last one: {last}", attempts
    )
