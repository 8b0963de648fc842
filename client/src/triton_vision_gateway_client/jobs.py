"""Handles of video jobs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from numpy.typing import NDArray

from triton_vision_gateway_client.answers.jobs import Job, JobEvent
from triton_vision_gateway_client.calls import jobs as calls
from triton_vision_gateway_client.errors import GatewayError, NotFound
from triton_vision_gateway_client.lines import EventReader
from triton_vision_gateway_client.options import CallOptions
from triton_vision_gateway_client.progress import PASSING, Bar, File, Waiting, ended
from triton_vision_gateway_client.retries import Deadline
from triton_vision_gateway_client.transports.sync import Transport


class JobHandle:
    """A job of the service. `job` is its state when it was last looked at."""

    def __init__(self, transport: Transport, job: Job) -> None:
        self._transport = transport
        self.job = job

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r}, state={self.job.state!r})"

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    def refresh(self, **options: Unpack[CallOptions]) -> Job:
        """Ask for the state.

        Raises:
            NotFound: it has been removed.
        """
        self.job = self._transport.run(calls.get(self.id, options))
        return self.job

    def events(self, **options: Unpack[CallOptions]) -> Iterator[JobEvent]:
        """Yield an event for each change, until the job is over or removed.

        Raises:
            ConnectionFailed: the connection broke; `wait` would go on.
        """
        stream = self._transport.open(calls.events(self.id, options))
        reader = EventReader()
        try:
            for chunk in stream.chunks():
                for event in map(calls.event_of, reader.feed(chunk)):
                    self.job = event.job or self.job
                    yield event
        finally:
            stream.close()

    def wait(self, *, timeout: float | None = None, progress: bool = False) -> Job:
        """Wait until the job is done, also across restarts of the service.

        Args:
            timeout: seconds; None: as long as it takes.
            progress: show a bar (the extra `progress`).

        Raises:
            JobFailed: it failed.
            NotFound: it has been removed.
            DeadlineExceeded: it isn't over in time; it goes on.
        """
        waiting = Waiting(Deadline(timeout))
        with Bar(wanted=progress) as bar:
            while True:
                fault: GatewayError | None = None
                try:
                    for event in self.events(timeout=waiting.deadline.share()):
                        job = waiting.heard(event, self.id)
                        bar.show(job)
                        if job.over:
                            return ended(job)
                except PASSING as error:
                    fault = error
                time.sleep(waiting.pause(fault))

    @property
    def artifacts(self) -> tuple[str, ...]:
        """Names of the files that the job has left, as of the last look."""
        return self.job.artifacts

    def artifact(self, name: str, **options: Unpack[CallOptions]) -> bytes:
        """Return a file of the results, such as `manifest.json`."""
        with contextlib.closing(self._transport.open(calls.artifact(self.id, name, options))) as stream:
            return b"".join(stream.chunks())

    def arrays(self, name: str, **options: Unpack[CallOptions]) -> dict[str, NDArray[Any]]:
        """Return the arrays of an npz file of the results, by their names."""
        return calls.arrays_of(self.artifact(name, **options))

    def download(self, name: str, target: str | os.PathLike[str], **options: Unpack[CallOptions]) -> Path:
        """Write a file of the results to `target`, completely or not at all, and check its SHA-256."""
        file = File(target, self.job.sha256_of(name))
        try:
            with contextlib.closing(self._transport.open(calls.artifact(self.id, name, options))) as stream:
                for chunk in stream.chunks():
                    file.write(chunk)
            return file.finish()
        finally:
            file.abandon()

    def download_all(self, folder: str | os.PathLike[str], **options: Unpack[CallOptions]) -> list[Path]:
        """Write all files of the results below a folder."""
        places = [(name, calls.place_in(Path(folder), name)) for name in self.refresh(**options).artifacts]
        return [self.download(name, place, **options) for name, place in places]

    def cancel(self, **options: Unpack[CallOptions]) -> bool:
        """Stop the job and remove it, unless it is over; return whether it was stopped."""
        try:
            if self.refresh(**options).over:
                return False
            self.delete(**options)
        except NotFound:
            return False
        return True

    def delete(self, **options: Unpack[CallOptions]) -> None:
        """Stop the job if it runs, and remove it with all its files.

        Raises:
            NotFound: it has been removed before.
        """
        self._transport.run(calls.delete(self.id, options))
