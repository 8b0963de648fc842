"""A progress bar for a job, and the rules of waiting for one; shared by both kinds of jobs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Self

from triton_vision_gateway_client.answers.exports import optional
from triton_vision_gateway_client.answers.jobs import Job, JobEvent
from triton_vision_gateway_client.calls.jobs import removed
from triton_vision_gateway_client.errors import (
    ConnectionFailed,
    JobFailed,
    Overloaded,
    RateLimited,
    Unavailable,
    UnexpectedAnswer,
)
from triton_vision_gateway_client.retries import Attempts, Deadline, Repeat, RetryPolicy

# A job outlives restarts of the service, so waiting for one does, too: for about two minutes.
PASSING = (ConnectionFailed, Overloaded, RateLimited, Unavailable)
_PATIENT = RetryPolicy(most=12)


class Bar:
    """A bar of tqdm if it is wanted, and else nothing. Use it with `with`.

    Raises:
        ImportError: the extra `progress` is missing.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._bar: Any = optional("tqdm", "progress").tqdm(unit="frame") if wanted else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, job: Job) -> None:
        """Show the state of a job."""
        if self._bar is None:
            return
        self._bar.total = job.frames if job.over else job.expected
        self._bar.n = job.frames
        waits = "" if not job.position else f", {job.position} before it"
        self._bar.set_description(f"{job.name}: {job.state}{waits}")


class Waiting:
    """The interruptions while a job is waited for."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self._attempts = Attempts(_PATIENT, Repeat.ALWAYS, deadline)

    def heard(self, event: JobEvent, job_id: str) -> Job:
        """Take note of an event, which ends a series of interruptions.

        Raises:
            NotFound: the job has been removed.
        """
        if event.job is None:
            raise removed(job_id)
        self._attempts = Attempts(_PATIENT, Repeat.ALWAYS, self.deadline)
        return event.job

    def pause(self, error: Exception | None) -> float:
        """Return the seconds until the events are asked for again; None: they ended without saying how.

        Raises:
            GatewayError: the error, after too many interruptions, or if there is no time left.
        """
        if isinstance(error, PASSING):
            return self._attempts.pause_after(error)
        return self._attempts.pause_after(ConnectionFailed("the events of the job ended", sent=True))


def ended(job: Job) -> Job:
    """Return a job that is over.

    Raises:
        JobFailed: it failed.
    """
    if job.state == "failed":
        raise JobFailed(job)
    return job


class File:
    """A file that is written completely or not at all, and whose SHA-256 is checked."""

    def __init__(self, target: str | os.PathLike[str], sha256: str | None) -> None:
        self.path = Path(target)
        self._part = self.path.with_name(f"{self.path.name}.part")
        self._expected = sha256
        self._digest = hashlib.sha256()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("wb")

    def write(self, chunk: bytes) -> None:
        """Write a piece."""
        self._digest.update(chunk)
        self._file.write(chunk)

    def finish(self) -> Path:
        """Put the file in its place.

        Raises:
            UnexpectedAnswer: its SHA-256 isn't that of the manifest.
        """
        self._file.close()
        if self._expected is not None and self._digest.hexdigest() != self._expected:
            raise UnexpectedAnswer(f"{self.path.name} has another SHA-256 than the manifest says")
        self._part.replace(self.path)
        return self.path

    def abandon(self) -> None:
        """Remove what isn't finished."""
        self._file.close()
        self._part.unlink(missing_ok=True)
