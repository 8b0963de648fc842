"""Videos as jobs: kept on disk with their input, run by threads of the service, gone on with after a crash."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from app.errors import (
    DeadlineExceeded,
    GatewayError,
    InsufficientGpuMemory,
    ModelNotReady,
    Overloaded,
    SeveralServers,
    TritonUnavailable,
    VideoNotFound,
    VideosUnavailable,
)
from app.pipelines import manifest as manifests
from app.pipelines.analysis import Cancelled, Input, Options, Progress, VideoAnalysis
from app.pipelines.profile import Profile
from app.pipelines.suite import Suite
from app.state.jobs import Job, JobIndex

_log = logging.getLogger(__name__)
_LOOK_S = 0.5  # how soon a deleted job stops, and a job of another worker's is seen
_RETENTION_S = 30.0
_REPORT_S = 0.3
_RETRY_S = 30.0
_MOST_ATTEMPTS, _MOST_LATE = 100, 20
_PASSING = (
    TritonUnavailable,
    SeveralServers,
    ModelNotReady,
    InsufficientGpuMemory,
    Overloaded,
)  # worth coming back for

ReadProfile = Callable[[str], Profile]


@dataclass(frozen=True, slots=True)
class JobOptions:
    """`concurrency` jobs run at once, `most_waiting` may wait; finished ones are kept `keep_s`, up to `keep_bytes`."""

    analysis: Options
    concurrency: int = 1
    most_waiting: int = 1000
    keep_s: float = 7 * 86400.0
    keep_bytes: int = 20 << 30


class VideoJobs:
    """See the module; safe to call from many threads. `start` once, `close` at the end.

    Args:
        folder: of the jobs: `<id>/input`, `<id>/profile.json`, and `<id>/output` as `VideoAnalysis` writes it.
        suite: runs them.
        read_profile: what `profile.json` says.
        options: see there.

    Raises:
        OSError, sqlite3.Error: the folder can't be written.
    """

    def __init__(self, folder: Path, suite: Suite, read_profile: ReadProfile, options: JobOptions) -> None:
        self._folder = folder
        self._suite = suite
        self._read_profile = read_profile
        self._options = options
        self._index = JobIndex(folder)
        self._running: dict[str, VideoAnalysis] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._wake = threading.Event()
        names = [f"video-job-{number}" for number in range(options.concurrency)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        self._threads.append(threading.Thread(target=self._keep_house, name="video-keeper", daemon=True))

    @property
    def incoming(self) -> Path:
        """Where an upload waits to become a job: on the same disk as the jobs."""
        return self._folder / ".incoming"

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop; what runs waits on disk for the next start."""
        self._closing.set()
        self._wake.set()
        with self._lock:
            for analysis in self._running.values():
                analysis.cancel()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._index.close()

    def check(self, file: BinaryIO, profile: Profile) -> None:
        """Whether the video can be read and the profile's branches serve it; a backend that is away may come back.

        Raises:
            GatewayError: it will never work like this.
        """
        try:
            self._analysis("check", profile).check(file)
        except _PASSING as error:
            if isinstance(error, ModelNotReady) and error.retry_after is None:  # nobody is loading it
                raise

    def submit(self, file: BinaryIO, name: str, nbytes: int, sha256: str, profile: Profile) -> Job:
        """A new job; `file` is a named one in `incoming` and becomes the job's.

        Raises:
            Overloaded: too many wait.
            VideosUnavailable: it can't be kept.
        """
        job = Job(uuid.uuid4().hex, "queued", name, profile.name, nbytes, sha256, time.time())
        folder = self._folder / job.id
        try:
            folder.mkdir()
            (folder / "profile.json").write_text(json.dumps(profile.to_dict()), encoding="utf-8")
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(folder / "input")
            taken = self._index.add(job, self._options.most_waiting)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise VideosUnavailable(f"the video can't be kept: {error.strerror or error}") from error
        if not taken:
            shutil.rmtree(folder, ignore_errors=True)
            raise Overloaded(f"{self._options.most_waiting} videos wait already", retry_after=60)
        self._wake.set()
        return job

    def get(self, job_id: str) -> dict[str, Any]:
        """A job as the caller sees it.

        Raises:
            VideoNotFound: there is none.
        """
        job = self._job(job_id)
        view = asdict(job)
        for hidden in ("owner", "not_before", "kept_bytes", "code", "detail"):
            del view[hidden]
        view["error"] = None if job.code is None else {"code": job.code, "detail": job.detail}
        view["position"] = self._index.waiting_before(job) if job.state == "queued" else None
        view["manifest"] = manifests.read(self._output(job_id)) if job.state == "done" else None
        return view

    def newest(self, most: int) -> list[dict[str, Any]]:
        """The newest jobs, as `get` answers them but for the manifest."""
        return [
            {"id": job.id, "state": job.state, "name": job.name, "created": job.created}
            for job in self._index.newest(most)
        ]

    def artifact(self, job_id: str, name: str) -> Path:
        """A file that the job's manifest lists, or the manifest.

        Raises:
            VideoNotFound: there is no such job or file.
        """
        output = self._output(self._job(job_id).id)
        manifest = manifests.read(output)
        known = {row["name"] for row in manifest["artifacts"]} | {manifests.NAME} if manifest else set()
        if name not in known:
            raise VideoNotFound(
                f"video {job_id} has no artefact {name[:100]!r}; it has {', '.join(sorted(known)) or 'none'}"
            )
        return output / name

    def delete(self, job_id: str) -> None:
        """Cancel the job if it isn't over, and remove all that belongs to it.

        Raises:
            VideoNotFound: there is none.
        """
        self._job(job_id)
        self._index.mark_deleted(job_id)
        self._stop_deleted()
        self._remove_deleted()

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        return self._index.counts()

    def _job(self, job_id: str) -> Job:
        job = self._index.get(job_id)
        if job is None:
            raise VideoNotFound(f"there is no video {job_id[:64]!r}")
        return job

    def _output(self, job_id: str) -> Path:
        return self._folder / job_id / "output"

    def _analysis(self, job_id: str, profile: Profile) -> VideoAnalysis:
        return VideoAnalysis(self._suite, profile, self._output(job_id), job_id, self._options.analysis)

    def _work(self) -> None:
        """On each of the job threads: one job after another."""
        while not self._closing.is_set():
            try:
                job = self._index.claim(time.time())
                if job is not None:
                    self._run(job)
                    continue
            except Exception:  # noqa: BLE001  # the thread must outlive whatever a job meets
                _log.exception("a video job's thread failed; it goes on")
            self._wake.wait(_LOOK_S)
            self._wake.clear()

    def _run(self, job: Job) -> None:
        try:
            profile = self._read_profile((self._folder / job.id / "profile.json").read_text(encoding="utf-8"))
            with (
                self._at_work(job, profile) as analysis,
                (self._folder / job.id / "input").open("rb") as file,
            ):
                analysis.run(Input(file, job.name, job.bytes, job.sha256), self._reporter(job))
        except Cancelled:
            self._cancelled(job)
        except (*_PASSING, DeadlineExceeded) as error:
            self._come_back(job, error)
        except GatewayError as error:
            self._over(job, "failed", (error.code, error.detail))
        except OSError as error:
            self._over(job, "failed", (VideosUnavailable.code, str(error)))
        except Exception as error:  # noqa: BLE001  # a defect fails its own job, not those that wait
            _log.exception("video %s failed", job.id)
            self._over(job, "failed", ("internal_error", type(error).__name__))
        else:
            self._over(job, "done", None)

    @contextlib.contextmanager
    def _at_work(self, job: Job, profile: Profile) -> Iterator[VideoAnalysis]:
        analysis = self._analysis(job.id, profile)
        with self._lock:
            self._running[job.id] = analysis
        try:
            if self._closing.is_set():
                analysis.cancel()
            yield analysis
        finally:
            with self._lock:
                del self._running[job.id]

    def _reporter(self, job: Job) -> Callable[[Progress], None]:
        last = 0.0

        def report(progress: Progress) -> None:
            nonlocal last
            if time.monotonic() - last > _REPORT_S:
                self._index.progress(job.id, progress.frames, progress.expected, progress.fraction)
                last = time.monotonic()

        return report

    def _cancelled(self, job: Job) -> None:
        if self._index.is_deleted(job.id):
            self._index.let_go(job.id)
            self._remove_deleted()
        else:  # the service stops; the next one goes on at once
            self._index.put_back(job.id, 0.0, None, None)

    def _come_back(self, job: Job, error: GatewayError) -> None:
        """Later: what stood in the way may pass, also a backend that was too slow; not a file that can't be decoded."""
        most = _MOST_ATTEMPTS
        if isinstance(error, DeadlineExceeded):
            most = 0 if error.stage == "decode" else _MOST_LATE
        if job.attempts >= most:
            self._over(job, "failed", (error.code, error.detail))
            return
        _log.warning("video %s waits: %s", job.id, error.detail)
        self._suite.metrics.retries.labels("job_postponed").inc()
        self._index.put_back(job.id, time.time() + _RETRY_S, error.code, error.detail)

    def _over(self, job: Job, state: str, error: tuple[str, str] | None) -> None:
        (self._folder / job.id / "input").unlink(missing_ok=True)
        manifest = manifests.read(self._output(job.id)) if state == "done" else None
        if manifest is not None:
            frames = manifest["frames"]["sampled"]
            self._index.progress(job.id, frames, frames, 1.0)
        self._index.finish(job.id, state, time.time(), _size(self._folder / job.id), error)
        if self._index.is_deleted(job.id):
            self._cancelled(job)

    def _keep_house(self) -> None:
        """On a thread of its own: deleted jobs stop and go, old ones too."""
        swept = 0.0
        while not self._closing.wait(_LOOK_S):
            try:
                self._stop_deleted()
                if time.monotonic() - swept > _RETENTION_S:
                    self._sweep()
                    swept = time.monotonic()
            except Exception:  # noqa: BLE001  # a full disk passes
                _log.exception("keeping the videos' folder failed; it is tried again")

    def _sweep(self) -> None:
        for job_id in self._index.expired(time.time(), self._options.keep_s, self._options.keep_bytes):
            _log.info("video %s is removed: it is too old, or there is too much", job_id)
            self._index.mark_deleted(job_id)
        self._remove_deleted()
        abandoned = time.time() - 86400  # an upload takes less than a day
        for path in self.incoming.glob("*.upload"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < abandoned:
                    path.unlink()

    def _stop_deleted(self) -> None:
        with self._lock:
            running = dict(self._running)
        for job_id, analysis in running.items():
            if self._index.is_deleted(job_id):
                analysis.cancel()

    def _remove_deleted(self) -> None:
        for job_id in self._index.removable():
            shutil.rmtree(self._folder / job_id, ignore_errors=True)
            self._index.remove(job_id)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
