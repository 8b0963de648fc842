"""Threads that fetch the videos of jobs before the jobs run.

They are threads of their own, so that no slow source holds up a job whose video is there.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from app.addresses import without_secrets
from app.errors import (
    GatewayError,
    Overloaded,
    PayloadTooLarge,
    SourceNotAllowed,
    SourceTooLarge,
    SourceUnreachable,
    VideosUnavailable,
)
from app.state.jobs import JobIndex
from app.state.sources import Source
from app.videos.job_files import NO_ROOM, SHORTAGES, JobFiles
from app.videos.job_threads import JobThreads
from app.videos.sources.routes import SETTING, Places
from app.videos.sources.transfer import Broken, Have, Limits, Stopped, Transfer

_log = logging.getLogger(__name__)
_AT_ONCE = 4  # transfers of one worker
_LOOK_S = 0.5
_MOST_FAILURES = 8  # attempts in a row that bring nothing
_LONGEST_PAUSE_S = 30.0
_ROOM_S = 30.0
NO_SOURCES = f"this service fetches no videos: {SETTING} is empty"


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """`limits` of one source, retries included; the first pause after a failure is `retry_s`."""

    places: Places
    limits: Limits
    retry_s: float = 0.5


class Fetcher(JobThreads):
    """See the module and JobThreads.

    Args:
        index: see JobThreads.
        files: of the jobs.
        admit: refuses so many more bytes of videos where there would be too many.
        options: see there.
        fetched: told of each video that is there.
    """

    close_s = 1.0

    def __init__(
        self,
        index: Callable[[], JobIndex],
        files: JobFiles,
        admit: Callable[[int], None],
        options: FetchOptions,
        fetched: Callable[[], None],
    ) -> None:
        super().__init__(index, "video-fetch", _AT_ONCE)
        self._files = files
        self._admit = admit
        self._options = options
        self._fetched = fetched
        self._looking = threading.Lock()

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                source = self._next()
                if source is not None:
                    self._fetch(source)
            except VideosUnavailable:  # the jobs' threads say so
                self._closing.wait(_LOOK_S)
            except Exception:  # noqa: BLE001  # the thread must outlive whatever it meets
                _log.exception("fetching videos failed; it is tried again")
                self._closing.wait(_LOOK_S)

    def _next(self) -> Source | None:
        """Take a source that is due; one thread looks at a time, so that idle ones cost nothing."""
        with self._looking:
            if self._closing.is_set():
                return None
            source = self._open().sources.claim(time.time())
            if source is None:
                self._wake.wait(_LOOK_S)
                self._wake.clear()
            return source

    def _fetch(self, source: Source) -> None:
        """One attempt; whatever becomes of it is recorded."""
        try:
            self._attempt(source)
        except Exception:
            words = "the attempt failed inside the gateway"
            self._put_back(source, time.time() + _ROOM_S, source.failures, source.spent_s, words)
            raise

    def _attempt(self, source: Source) -> None:
        began, have = time.monotonic(), Have(source.bytes, source.total, source.etag)

        def spent_s() -> float:
            return source.spent_s + time.monotonic() - began

        try:
            sha256 = self._transfer(source, have, spent_s)
            self._arrived(source, have, sha256)
        except Stopped:
            self._put_back(source, 0.0, source.failures, spent_s(), None)
        except Broken as error:
            self._again(source, have, spent_s(), error)
        except Overloaded as error:  # others need the room that a part of it would take
            self._files.partial(source.job_id).unlink(missing_ok=True)
            self._later(source, Have(), spent_s(), error.detail)
        except VideosUnavailable as error:
            self._later(source, have, spent_s(), error.detail)
        except PayloadTooLarge as error:
            self._failed(source, SourceTooLarge(error.detail))
        except GatewayError as error:
            self._failed(source, error)
        except OSError as error:
            self._not_stored(source, have, spent_s(), error)

    def _not_stored(self, source: Source, have: Have, spent_s: float, error: OSError) -> None:
        if isinstance(error, FileNotFoundError):  # deleted, or removed by somebody else
            self._failed(source, VideosUnavailable("the job's files are gone"))
            return
        if error.errno not in SHORTAGES:
            _log.warning("the source of video %s can't be stored: %s", source.job_id, error)
        words = NO_ROOM if error.errno in SHORTAGES else "the job's files can't be read or written"
        self._later(source, have, spent_s, words)

    def _transfer(self, source: Source, have: Have, spent_s: Callable[[], float]) -> str:
        """Bring the source to the disk; return its SHA-256 in hex."""
        limits, reserved = self._options.limits, source.reserved

        def reserve(nbytes: int) -> None:
            nonlocal reserved
            if nbytes > reserved:
                self._admit(nbytes - reserved)
                reserved = nbytes

        route = self._options.places.route(source.url)
        left = replace(limits, limit_s=limits.limit_s - source.spent_s)
        transfer = Transfer(route, left, reserve, lambda now: self._keep(source, now, spent_s()))
        with self._at_work(source.job_id, transfer.abort):
            return transfer.run(self._files.begin_fetch(source), have)

    def _arrived(self, source: Source, have: Have, sha256: str) -> None:
        self._files.arrived(source)
        shown = without_secrets(source.url)
        if self._settled(lambda: self._open().sources.fetched(source.job_id, shown, have.nbytes, sha256)):
            self._fetched()

    def _again(self, source: Source, have: Have, spent_s: float, error: Broken) -> None:
        """Put a source back after a failure; progress that the next attempt can use starts the count again."""
        progress = have.resumable and have.nbytes > source.bytes
        failures = 1 if progress else source.failures + 1
        if failures >= _MOST_FAILURES:
            self._failed(
                source, SourceUnreachable(f"{failures} attempts failed; the last one: {error.words}")
            )
            return
        pause = min(self._options.retry_s * 2.0 ** (failures - 1), _LONGEST_PAUSE_S)
        pause = max(pause * random.uniform(0.75, 1.25), error.wait_s)  # noqa: S311  # no secret
        self._keep(source, have, spent_s)
        self._put_back(source, time.time() + pause, failures, spent_s + pause, error.words)

    def _later(self, source: Source, have: Have, spent_s: float, words: str) -> None:
        """Put a source back that waits for room; that is no failure of the source, and takes none of its time."""
        self._keep(source, have, spent_s)
        self._put_back(source, time.time() + _ROOM_S, source.failures, spent_s, words)

    def _keep(self, source: Source, have: Have, spent_s: float) -> bool:
        """Record what is on the disk; return False if the job has been deleted."""
        with contextlib.suppress(VideosUnavailable):  # busy; the next second records more
            return self._open().sources.progress(source.job_id, have.nbytes, have.total, have.etag, spent_s)
        return True

    def _put_back(self, source: Source, due: float, failures: int, spent_s: float, words: str | None) -> None:
        self._settled(lambda: self._open().sources.put_back(source.job_id, due, failures, spent_s, words))

    def _failed(self, source: Source, error: GatewayError) -> None:
        _log.info("the source of video %s failed: %s", source.job_id, error.detail)
        self._files.partial(source.job_id).unlink(missing_ok=True)
        shown = without_secrets(source.url)
        self._settled(
            lambda: self._open().sources.failed(source, shown, time.time(), error.code, error.detail)
        )

    def _settled(self, write: Callable[[], bool | None]) -> bool | None:
        """Retry until the index can be used; a stop leaves the row to the next start, which continues it."""
        while True:
            with contextlib.suppress(VideosUnavailable):
                return write()
            if self._closing.wait(_LOOK_S):
                return None


def refuse_all(index: JobIndex, files: JobFiles) -> None:
    """End the jobs whose videos were to be fetched under other settings."""
    for source in index.sources.unfetched():
        files.partial(source.job_id).unlink(missing_ok=True)
        shown = without_secrets(source.url)
        index.sources.failed(source, shown, time.time(), SourceNotAllowed.code, NO_SOURCES)
        _log.warning("video %s isn't fetched: %s", source.job_id, NO_SOURCES)
