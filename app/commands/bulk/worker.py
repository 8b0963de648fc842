"""The worker of `gateway bulk`: one process, one set of models, one video after another."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.bulk.driver import VIDEOS
from app.bulk.entries import Entry
from app.bulk.executors.base import Stopped
from app.bulk.outcomes import Outcome, now
from app.commands.analysis_backend import Backend, Unusable
from app.commands.video_threads import Stop
from app.errors import GatewayError
from app.families import FAMILIES
from app.settings import Settings
from app.videos.analysis import Cancelled
from app.videos.analyst import Analyst, Finding
from app.videos.checkpoint import locked
from app.videos.profile_documents import ProfileReader
from app.videos.stores.base import ArtifactStore
from app.videos.stores.folder import FolderStore
from app.videos.stores.opened import open_store
from app.videos.stores.sources import Source

_log = logging.getLogger(__name__)
_BUSY_S = 10.0
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class MakeAnalysisWorker:
    """Makes a worker in a process of the executor. `profile` is the JSON of `Profile.to_dict`."""

    settings: Settings
    profile: str
    output: str
    force: bool = False

    def __call__(self) -> AnalysisWorker:
        return AnalysisWorker(self)


class AnalysisWorker:
    """See `Worker`."""

    def __init__(self, make: MakeAnalysisWorker) -> None:
        profile = ProfileReader(FAMILIES.components).restored(make.profile)
        self._stop = Stop()
        backend = Backend(make.settings, profile, 1, self._stop)
        self._analyst = Analyst(profile, backend, force=make.force)
        self._videos = open_store(make.output).within(VIDEOS)
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def analyse(self, entry: Entry, attempt: int) -> Outcome:
        """See `Worker.analyse`."""
        started, begun = now(), time.monotonic()
        facts: dict[str, Any]
        try:
            facts = self._analysed(entry)
        except Cancelled:
            raise Stopped from None
        except Unusable:
            raise
        except Exception as error:  # noqa: BLE001  # a defect is one video's, too
            _log.debug("%s", entry.name, exc_info=True)
            code, reason = _words(error)
            facts = {"state": "failed", "code": code, "reason": reason}
        return Outcome(
            name=entry.name,
            uri=entry.uri,
            id=entry.id,
            attempts=attempt,
            seconds=round(time.monotonic() - begun, 3),
            worker=self._name,
            started_at=started,
            finished_at=now(),
            **facts,
        )

    def stop(self) -> None:
        """See `Worker.stop`."""
        self._stop.request()
        self._analyst.cancel()

    def close(self) -> None:
        """See `Worker.close`."""
        self._analyst.__exit__(None, None, None)

    def _analysed(self, entry: Entry) -> dict[str, Any]:
        sink = self._videos.within(entry.name)
        with self._alone(sink):
            finding = self._analyst.run(Source(entry.name, entry.uri), sink)
        return _facts(finding)

    @contextlib.contextmanager
    def _alone(self, sink: ArtifactStore) -> Iterator[None]:
        """Context manager that holds the lock of a folder. A bucket has none.

        Raises:
            _Busy: another process keeps it. That of a driver that was killed ends soon.
        """
        with contextlib.ExitStack() as held:
            if isinstance(sink, FolderStore):
                limit = time.monotonic() + _BUSY_S
                while not held.enter_context(locked(sink.folder / ".lock")):
                    held.close()
                    self._stop.check()
                    if time.monotonic() > limit:
                        raise _Busy
                    time.sleep(_LOOK_S)
            yield


class _Busy(Exception):
    """Another process works on the video."""


def _facts(finding: Finding) -> dict[str, Any]:
    manifest = finding.manifest
    fault = manifest["fault"] or {"code": None, "detail": None}
    return {
        "state": "done" if finding.status == "ok" else finding.status,
        "code": fault["code"],
        "reason": fault["detail"],
        "frames": manifest["frames"]["sampled"],
        "bytes": manifest["input"]["bytes"],
        "sha256": manifest["input"]["sha256"],
        "config_hash": manifest["config_hash"],
        "model_signature": manifest["model_signature"],
    }


def _words(error: Exception) -> tuple[str, str]:
    """Return code and reason of a fault."""
    if isinstance(error, GatewayError):
        return error.code, error.detail
    if isinstance(error, _Busy):
        return "busy", "another process works on this video"
    if isinstance(error, FileNotFoundError):
        return "not_found", "there is no such video"
    if isinstance(error, OSError):
        return "unreadable", error.strerror or "the video can't be read, or the output can't be written"
    return "internal_error", type(error).__name__
