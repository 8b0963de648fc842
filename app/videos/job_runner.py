"""Threads that run video jobs one after another, and put back what can't be done now."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable

from app.errors import (
    DeadlineExceeded,
    GatewayError,
    InsufficientGpuMemory,
    ModelNotReady,
    Overloaded,
    SeveralServers,
    TritonUnavailable,
    VideosUnavailable,
)
from app.metrics import Metrics
from app.state.jobs import Job, JobIndex
from app.state.sources import Source as Fetched
from app.videos import manifest as manifests
from app.videos.analysis import Cancelled
from app.videos.analyst import Analyst
from app.videos.job_files import NO_ROOM, SHORTAGES, JobFiles
from app.videos.job_threads import JobThreads
from app.videos.profile import Profile
from app.videos.run_state import Progress, Report
from app.videos.sources.views import origin
from app.videos.stores.sources import Source

_log = logging.getLogger(__name__)
LOOK_S = 0.5  # how soon a deleted job stops, and a job of another worker's is seen
_REPORT_S = 0.3
_FIRST_RETRY_S, _RETRY_S = 2.0, 30.0
_ROOM_S, _ROOM_LONGEST_S = 5.0, 60.0
_MOST_ATTEMPTS, _MOST_LATE, _MOST_STALLS = 100, 20, 4
# Errors that may pass; the job is tried again later.
PASSING = (TritonUnavailable, SeveralServers, ModelNotReady, InsufficientGpuMemory, Overloaded)
_WAITS_FOR_ROOM = f"{NO_ROOM}; the job resumes when there is room"

ReadProfile = Callable[[str], Profile]
MakeAnalyst = Callable[[Profile], Analyst]


class JobRunner(JobThreads):
    """See the module and JobThreads.

    Args:
        index: see JobThreads.
        files: of the jobs.
        read_profile: reads `profile.json`.
        analyst: makes what analyses a job.
        threads: jobs that run at once.
        metrics: where postponed jobs are counted.
    """

    def __init__(
        self,
        index: Callable[[], JobIndex],
        files: JobFiles,
        read_profile: ReadProfile,
        analyst: MakeAnalyst,
        threads: int,
        metrics: Metrics,
    ) -> None:
        super().__init__(index, "video-job", threads)
        self._files = files
        self._read_profile = read_profile
        self._analyst = analyst
        self._metrics = metrics
        self._claimed: dict[str, Job] = {}
        self._short: dict[str, int] = {}  # jobs that found no room, and how often in a row
        self._trouble = ""

    @property
    def _index(self) -> JobIndex:
        return self._open()

    def remove_deleted(self) -> None:
        """Remove the files of deleted jobs that nobody runs any more."""
        for job_id in self._index.removable():
            try:
                self._files.remove(job_id)
            except OSError as error:
                self.say(VideosUnavailable(str(error)))
            else:
                self._index.remove(job_id)

    def say(self, error: GatewayError) -> None:
        """Log a trouble of the storage once for as long as it is the same."""
        words = f"{error.detail} ({error.__cause__})" if error.__cause__ is not None else error.detail
        if words != self._trouble:
            self._trouble = words
            _log.warning("video jobs wait: %s", words)

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                if self._next():
                    continue
            except VideosUnavailable as error:
                self.say(error)
            except Exception:  # noqa: BLE001  # the thread must outlive whatever a job meets
                _log.exception("a video job's thread failed; it goes on")
            self._wake.wait(LOOK_S)
            self._wake.clear()

    def _next(self) -> bool:
        """Run the next job, if there is one and there is room for its results."""
        if self._short and not self._files.has_room():
            return False
        job = self._index.claim(time.time())
        if job is None:
            return False
        self._trouble = ""
        self._claimed[job.id] = job
        try:
            self._run(job)
        finally:
            del self._claimed[job.id]
            self._index.release(job.id)
        return True

    def _is_lost(self, job_id: str) -> bool:
        job = self._claimed.get(job_id)
        return job is not None and not self._index.holds(job)

    def _run(self, job: Job) -> None:
        try:
            profile = self._read_profile(self._files.profile_text(job.id))
            fetched, last = self._index.sources.get(job.id), job.attempts >= _MOST_STALLS
            analyst = self._analyst(profile)
            with (
                self._at_work(job.id, analyst.cancel),
                self._files.input_file(job, _attempt(fetched), analyst.check) as path,
            ):
                given = Source(job.name, str(path), job.id, job.sha256, origin(fetched))
                results, report = self._files.results(job), self._reporter(job, analyst.cancel)
                finding = analyst.run(given, results, report, accept_stall=last)
        except Cancelled:  # deleted, or the service stops: the next one resumes at once
            self._put_back(job, 0.0, None)
        except VideosUnavailable as error:
            self._wait_for_room(job, error)
        except (*PASSING, DeadlineExceeded) as error:
            self._postpone(job, error)
        except GatewayError as error:
            self._over(job, "failed", (error.code, error.detail))
        except OSError as error:
            self._not_stored(job, error)
        except MemoryError as error:
            self._wait_for_room(job, error)
        except Exception as error:  # noqa: BLE001  # a defect fails its own job, not those that wait
            _log.exception("video %s failed", job.id)
            self._over(job, "failed", ("internal_error", type(error).__name__))
        else:
            fault = finding.manifest["fault"]
            self._over(job, "done", None if fault is None else (fault["code"], fault["detail"]))

    def _reporter(self, job: Job, stop: Callable[[], None]) -> Report:
        last = 0.0

        def report(progress: Progress) -> None:
            nonlocal last
            if time.monotonic() - last > _REPORT_S:
                with contextlib.suppress(VideosUnavailable):  # no job fails because nobody can follow it
                    if not self._index.progress(job, progress.frames, progress.expected, progress.fraction):
                        stop()  # it has been deleted, or is another worker's
                last = time.monotonic()

        return report

    def _put_back(self, job: Job, pause_s: float, why: GatewayError | None, *, counts: bool = True) -> None:
        when = time.time() + pause_s if pause_s else 0.0
        code, detail = (None, None) if why is None else (why.code, why.detail)
        attempts = job.attempts if counts else job.attempts - 1
        self._settled(lambda: self._index.put_back(job, when, code, detail, attempts))
        self._release_deleted(job)

    def _release_deleted(self, job: Job) -> None:
        """Let the files of a job go that was deleted while it ran."""
        if self._settled(lambda: self._index.is_deleted(job.id)):
            self._short.pop(job.id, None)
            self._settled(lambda: self._index.disown(job.id))
            self._settled(self.remove_deleted)

    def _not_stored(self, job: Job, error: OSError) -> None:
        if error.errno in SHORTAGES:
            self._wait_for_room(job, error)
        elif isinstance(error, FileNotFoundError) and self._is_gone(job):
            self._over(job, "failed", (VideosUnavailable.code, "the job's files are gone"))
        else:
            _log.warning("video %s: %s", job.id, error)
            self._postpone(job, VideosUnavailable("the job's files can't be read or written"))

    def _is_gone(self, job: Job) -> bool:
        with contextlib.suppress(OSError, VideosUnavailable):
            return not self._files.has_input(job.id, _attempt(self._index.sources.get(job.id)))
        return False

    def _wait_for_room(self, job: Job, error: Exception) -> None:
        """Put the job back into the queue with its input and its results so far, any number of times."""
        self._short[job.id] = times = self._short.get(job.id, 0) + 1
        self._metrics.retries.labels("job_postponed").inc()
        self.say(error if isinstance(error, GatewayError) else VideosUnavailable(str(error)))
        pause = min(_ROOM_S * times, _ROOM_LONGEST_S)
        self._put_back(job, pause, VideosUnavailable(_WAITS_FOR_ROOM), counts=False)

    def _postpone(self, job: Job, error: GatewayError) -> None:
        """Put the job back into the queue; the obstacle may pass, even a backend or decoder that was too slow.

        What may pass soon, such as models that load, is looked at again soon. A decoder that hangs again and again does
        so because of its file.
        """
        most = _MOST_ATTEMPTS
        if isinstance(error, DeadlineExceeded):
            most = _MOST_STALLS if error.stage == "decode" else _MOST_LATE
        if job.attempts >= most:
            self._over(job, "failed", (error.code, error.detail))
            return
        _log.warning("video %s waits: %s", job.id, error.detail)
        self._metrics.retries.labels("job_postponed").inc()
        soon = _FIRST_RETRY_S * 2 ** (job.attempts - 1)
        late = isinstance(error, DeadlineExceeded)
        self._put_back(job, _RETRY_S if late else min(soon, _RETRY_S), error)

    def _over(self, job: Job, state: str, error: tuple[str, str] | None) -> None:
        """Record the end of the job, then remove its input: a crash in between loses neither."""
        self._short.pop(job.id, None)
        finished = self._settled(lambda: self._finish(job, state, error))
        if finished:
            try:
                self._files.settle(job)
            except OSError as failure:  # it stays until the job goes
                _log.warning("video %s: what isn't needed any more can't be removed: %s", job.id, failure)
        if finished is not None:
            self._release_deleted(job)

    def _finish(self, job: Job, state: str, error: tuple[str, str] | None) -> bool:
        found = manifests.read_whole(self._files.results(job)) if state == "done" else None
        frames = None if found is None else found[1]["frames"]["sampled"]
        digest = None if found is None else hashlib.sha256(found[0]).hexdigest()
        kept_bytes = self._files.kept_bytes(job)
        return self._index.finish(job, state, time.time(), kept_bytes, error, digest, frames)

    def _settled(self, write: Callable[[], bool | None]) -> bool | None:
        """Retry until the index can be used, so that no job stays `running`; a stop leaves that to the next start."""
        while True:
            try:
                return write()
            except VideosUnavailable as error:
                self.say(error)
            except OSError as error:
                self.say(VideosUnavailable(str(error)))
            if self._closing.wait(LOOK_S):
                return None


def _attempt(source: Fetched | None) -> int:
    """Return the number of the attempt that brought a video; 0: it was sent."""
    return 0 if source is None else source.attempts
