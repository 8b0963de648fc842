"""Workers of executors that need no models: what a video does to its worker stands in its URI."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

from app.bulk.entries import Entry
from app.bulk.executors.base import Stopped
from app.bulk.outcomes import Outcome


@dataclass(frozen=True)
class MakeObedient:
    """Makes a worker that leaves a file `<name>.<attempt>` in `folder` for every video that it begins."""

    folder: str

    def __call__(self) -> Obedient:
        return Obedient(Path(self.folder))


class Obedient:
    """Does what the URI says: `ok`, `kill`, `kill once`, `wait` (until it is told to stop), `unusable`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told = threading.Event()

    def analyse(self, entry: Entry, attempt: int) -> Outcome:
        (self._folder / f"{entry.name}.{attempt}").write_text(str(os.getpid()))
        if entry.uri == "kill" or (entry.uri == "kill once" and attempt == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if entry.uri == "unusable":
            raise RuntimeError("no model is here")
        if entry.uri == "wait":
            self._told.wait()
            raise Stopped
        return Outcome(entry.name, entry.uri, "done", attempts=attempt, frames=1, worker=str(os.getpid()))

    def stop(self) -> None:
        self._told.set()

    def close(self) -> None:
        (self._folder / f"closed.{os.getpid()}").touch()
