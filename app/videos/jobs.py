"""Videos as jobs: kept on disk with their input, run by threads of the service, resumed after a crash."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from app.errors import (
    InvalidParameter,
    ModelNotReady,
    Overloaded,
    PayloadTooLarge,
    SourceNotAllowed,
    UrlRefused,
    VideoNotFound,
    VideosUnavailable,
)
from app.pipelines.pipeline_set import PipelineSet
from app.state.callbacks import Callback
from app.state.idempotency import Held
from app.state.jobs import FINISHED, Job, JobIndex, Position
from app.videos import manifest as manifests
from app.videos.analysis import Options, VideoAnalysis
from app.videos.analyst import Analyst, LoadedSuite
from app.videos.formats import on_demand
from app.videos.formats.base import Finished
from app.videos.job_files import JobFiles
from app.videos.job_runner import LOOK_S, PASSING, JobRunner, ReadProfile
from app.videos.profile import Profile
from app.videos.sources.fetcher import NO_SOURCES, Fetcher, FetchOptions, refuse_all
from app.videos.sources.views import source_view
from app.videos.stores.folder import FolderStore
from app.videos.webhooks import NO_HOSTS, OUTCOMES, WebhookOptions, Webhooks

_log = logging.getLogger(__name__)
_RETENTION_S = 30.0
_UPLOAD_S = 86400.0  # no upload takes longer
_ORPHAN_S = 600.0  # no submission takes longer, once its upload is there
_RETRY_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class JobOptions:
    """`concurrency` jobs run at once; `most_waiting` may wait, and inputs may have `most_input_bytes` together.

    Finished ones are kept `keep_s`, up to `keep_bytes`. Without `webhooks`, no caller's URL hears of them; without
    `sources`, no video is fetched.
    """

    analysis: Options
    concurrency: int = 1
    most_waiting: int = 1000
    most_input_bytes: int = 20 << 30
    keep_s: float = 7 * 86400.0
    keep_bytes: int = 20 << 30
    webhooks: WebhookOptions | None = None
    sources: FetchOptions | None = None


class VideoJobs:
    """See the module; safe to call from many threads. `start` once, `close` at the end.

    Methods raise VideosUnavailable where the folder can't be used now. Reading works on a full disk, and so does
    deleting. `only` is the name of an API key whose jobs alone exist for the caller; None: all do.

    Args:
        files: of the jobs.
        open_index: opens the index of the jobs; raises VideosUnavailable where that can't be done now.
        pipelines: runs them.
        read_profile: what `profile.json` says.
        options: see there.
    """

    def __init__(
        self,
        files: JobFiles,
        open_index: Callable[[], JobIndex],
        pipelines: PipelineSet,
        read_profile: ReadProfile,
        options: JobOptions,
    ) -> None:
        self._files = files
        self._open_index = open_index
        self._pipelines = pipelines
        self._read_profile = read_profile
        self._options = options
        self._opening = threading.Lock()
        self._opened: JobIndex | None = None
        self._refused: VideosUnavailable | None = None
        self._next_opening = 0.0
        self._submitting: set[str] = set()
        self._closing = threading.Event()
        self._runner = JobRunner(
            self._open, self._files, read_profile, self._analyst, options.concurrency, pipelines.metrics
        )
        count = pipelines.metrics.webhook_attempts
        # All of them begin at zero, so that an alert sees the first one, too.
        self._outcomes = {outcome: count.labels(outcome) for outcome in OUTCOMES}
        webhooks = options.webhooks
        self._webhooks = (
            Webhooks(self._open, webhooks, lambda outcome: self._outcomes[outcome].inc())
            if webhooks
            else None
        )
        sources = options.sources
        self._fetcher = (
            Fetcher(self._open, self._files, self.admit, sources, self._runner.wake) if sources else None
        )
        self._keeper = threading.Thread(target=self._keep_house, name="video-keeper", daemon=True)

    @property
    def incoming(self) -> Path:
        """Folder where an upload waits to become a job: on the same disk as the jobs."""
        return self._files.incoming

    def start(self) -> None:
        """Begin with what waits, as soon as the folder can be used."""
        with contextlib.suppress(VideosUnavailable, OSError):
            if self._index.alone():  # what was on its way when the last service ended
                self._files.remove_uploads()
        self._runner.start()
        self._keeper.start()
        for part in (self._webhooks, self._fetcher):
            if part is not None:
                part.start()

    def close(self) -> None:
        """Stop; what runs waits on disk for the next start."""
        self._closing.set()
        for part in (self._webhooks, self._fetcher):
            if part is not None:
                part.close()
        self._runner.close()
        if self._keeper.ident is not None:
            self._keeper.join()
        if self._opened is not None:
            self._opened.close()
        self._files.close()

    def check(self, file: BinaryIO, profile: Profile) -> None:
        """Check that the video can be read and the profile's branches serve it; a backend that is away may come back.

        Raises:
            GatewayError: it will never work like this.
        """
        try:
            store, options = FolderStore(self._files.incoming), self._options.analysis
            VideoAnalysis(self._pipelines, profile, store, "check", options).check(file)
        except PASSING as error:
            if isinstance(error, Overloaded) or (  # no decoder can be started now
                isinstance(error, ModelNotReady) and error.retry_after is None  # nobody is loading it
            ):
                raise

    def check_callback(self, url: str) -> None:
        """Check that `url` may hear of the end of a job. Resolves its host.

        Raises:
            InvalidParameter: it is no URL that can be called.
            UrlRefused: the service may not call it.
        """
        if self._webhooks is None:
            raise UrlRefused(NO_HOSTS)
        self._webhooks.check(url)

    def check_source(self, url: str) -> None:
        """Check that a video may be fetched from `url`. Resolves its host.

        Raises:
            InvalidParameter: it is no URL that can be fetched.
            SourceNotAllowed: the service may not fetch it.
        """
        if self._options.sources is None:
            raise SourceNotAllowed(NO_SOURCES)
        self._options.sources.places.check_addresses(url)

    def admit(self, nbytes: int) -> None:
        """Refuse `nbytes` more of uploads where the inputs on disk would become too many.

        Raises:
            Overloaded: those that wait are too large together.
            PayloadTooLarge: these alone are.
        """
        most = self._options.most_input_bytes
        if nbytes > most:
            raise PayloadTooLarge(f"the video has more than {most} bytes")
        if self._index.input_bytes() + self._files.incoming_bytes() + nbytes > most:
            raise Overloaded(
                f"videos that wait, run or are being uploaded may have {most} bytes together", retry_after=60
            )

    def hold_key(self, made_by: str | None, key: str, seconds: float) -> Held:
        """Return the job that was submitted with an Idempotency-Key, or reserve the key for a request of `seconds`.

        Raises:
            IdempotencyKeyInUse: another request has reserved it.
        """
        now = time.time()
        return self._index.keys.hold(made_by, key, now, now + seconds + _ORPHAN_S)

    def release_key(self, held: Held) -> None:
        """End the reservation of a key whose request has failed."""
        self._index.keys.release(held.job_id)

    def leave_key(self, held: Held) -> None:
        """End it soon. Never blocks."""
        if held.digest is None:
            self._index.keys.leave(held.job_id)

    def submit(
        self,
        file: BinaryIO,
        name: str,
        nbytes: int,
        sha256: str,
        profile: Profile,
        made_by: str | None = None,
        callback_url: str | None = None,
        key: Held | None = None,
    ) -> Job:
        """A new job; `file` is a named one in `incoming` and becomes the job's. `callback_url` has been checked.

        `key` is the reserved Idempotency-Key of the request, with the digest of what it asks for.

        Raises:
            Overloaded: too many wait.
            VideosUnavailable: it can't be kept.
            IdempotencyKeyInUse: the key is no longer reserved for it.
        """
        job = Job(_id(key), "queued", name, profile.name, nbytes, sha256, time.time(), made_by=made_by)
        self._submit(job, file, profile, callback_url, key=key)
        self._runner.wake()
        return job

    def submit_source(
        self,
        url: str,
        name: str,
        profile: Profile,
        made_by: str | None = None,
        callback_url: str | None = None,
        key: Held | None = None,
    ) -> Job:
        """A new job whose video is fetched from `url`, which has been checked. See `submit`."""
        job = Job(_id(key), "queued", name, profile.name, 0, "", time.time(), made_by=made_by)
        self._submit(job, None, profile, callback_url, url, key)
        if self._fetcher is not None:
            self._fetcher.wake()
        return job

    def _submit(
        self,
        job: Job,
        file: BinaryIO | None,
        profile: Profile,
        callback_url: str | None,
        source_url: str | None = None,
        key: Held | None = None,
    ) -> None:
        self._submitting.add(job.id)
        try:
            taken = self._keep(job, file, profile, callback_url, source_url, key)
        finally:
            self._submitting.discard(job.id)
        if not taken:
            raise Overloaded(f"{self._options.most_waiting} videos are already waiting", retry_after=60)

    def _keep(
        self,
        job: Job,
        file: BinaryIO | None,
        profile: Profile,
        callback_url: str | None,
        source_url: str | None,
        key: Held | None,
    ) -> bool:
        """Store the job's files and its row, or neither."""
        taken, unknown = False, False
        try:
            self._files.keep(job.id, file, profile)
            digest = None if key is None else key.digest
            taken = self._index.add(job, self._options.most_waiting, callback_url, source_url, digest)
        except VideosUnavailable as error:
            unknown = error.commit_unknown
            if not unknown or self._index.get(job.id) is None:  # it may still be there in a moment
                raise
            taken = True
        except OSError as error:
            words = f"the video can't be kept: {error.strerror or 'no room'}"
            raise VideosUnavailable(words, retry_after=_RETRY_AFTER_S) from error
        finally:
            if not taken and not unknown:
                with contextlib.suppress(OSError):  # the keeper removes files without a job
                    self._files.remove(job.id)
        return taken

    def get(self, job_id: str, only: str | None = None) -> dict[str, Any]:
        """A job as the caller sees it; `further` names files that `artifact` makes.

        Raises:
            VideoNotFound: there is none.
        """
        job = self._job(job_id, only)
        view = asdict(job)
        for hidden in ("not_before", "kept_bytes", "fence", "manifest_sha256", "code", "detail", "made_by"):
            del view[hidden]
        view["owner"] = job.made_by
        view["partial"] = job.partial
        view["error"] = None if job.code is None else {"code": job.code, "detail": job.detail}
        view["position"] = self._index.waiting_before(job) if job.state == "queued" else None
        view["manifest"] = self._manifest(job) if job.state == "done" else None
        view["callback"] = _callback_view(self._index.callbacks.get(job_id), job)
        view["source"] = source_view(self._index.sources.get(job_id))
        view["further"] = sorted(on_demand.offered(found)) if (found := self._finished(job, view)) else []
        return view

    def newest(
        self,
        most: int,
        only: str | None = None,
        states: Sequence[str] = (),
        after: Position | None = None,
    ) -> tuple[list[dict[str, Any]], Position | None]:
        """A page of the jobs in short, the newest first, and its end where there are more. See `JobIndex.newest`."""
        jobs = self._index.newest(most + 1, only, states, after)
        end = Position(jobs[most - 1].created, jobs[most - 1].id) if len(jobs) > most else None
        rows = [
            {
                "id": job.id, "state": job.state, "partial": job.partial, "name": job.name,
                "owner": job.made_by, "created": job.created,
            }
            for job in jobs[:most]
        ]  # fmt: skip
        return rows, end

    def artifact(self, job_id: str, name: str, only: str | None = None) -> BinaryIO:
        """Open a file that the job's manifest lists, the manifest, or a file that is made of those now.

        Raises:
            VideoNotFound: there is no such job or file.
            VideosUnavailable: there is no room to make it.
        """
        job = self._job(job_id, only)
        manifest = self._manifest(job)
        finished = self._finished(job, {"manifest": manifest})
        form = None if finished is None else on_demand.offered(finished).get(name)
        if finished is not None and form is not None:
            try:
                on_demand.make(finished, name, form)
            except OSError as error:
                words = f"the file can't be made: {error.strerror or 'no room'}"
                raise VideosUnavailable(words, retry_after=_RETRY_AFTER_S) from error
            self._count(job)
            return self._opened_file(job, name)
        known = {row["name"] for row in manifest["artifacts"]} | {manifests.NAME} if manifest else set()
        if name not in known:
            raise VideoNotFound(
                f"video {job_id} has no artefact {name[:100]!r}; it has {', '.join(sorted(known)) or 'none'}"
            )
        return self._opened_file(job, name)

    def _opened_file(self, job: Job, name: str) -> BinaryIO:
        try:
            return self._files.file(job, name)
        except OSError as error:
            raise VideosUnavailable("the file can't be read now", retry_after=_RETRY_AFTER_S) from error

    def _count(self, job: Job) -> None:
        """Let files that were made on demand count as kept; what can't be recorded now is at the next request."""
        with contextlib.suppress(OSError, VideosUnavailable):
            kept = self._files.kept_bytes(job)
            if kept > job.kept_bytes:
                self._index.keep(job.id, kept)

    def _finished(self, job: Job, view: Mapping[str, Any]) -> Finished | None:
        """Return the finished job for the files that can be made of it; None if it isn't done."""
        if view["manifest"] is None:
            return None
        try:
            profile = self._read_profile(self._files.profile_text(job.id))
        except (OSError, InvalidParameter):  # deleted meanwhile, or of another version
            return None
        return on_demand.finished_job(self._files.results(job), view["manifest"], profile)

    def delete(self, job_id: str, only: str | None = None) -> None:
        """Cancel the job if it isn't over, and remove all that belongs to it.

        Raises:
            VideoNotFound: there is none.
        """
        job = self._job(job_id, only)
        try:
            self._index.mark_deleted(job_id)
        except VideosUnavailable:
            if job.state not in FINISHED or self._files.shared:
                raise
            self._files.remove(job_id)  # frees space for the index, which is on the same disk
            self._index.mark_deleted(job_id)
        with contextlib.suppress(VideosUnavailable):  # the keeper goes on with it
            self._stop_deleted()
            self._runner.remove_deleted()

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        return self._index.counts()

    @property
    def _index(self) -> JobIndex:
        return self._open()

    def _open(self) -> JobIndex:
        with self._opening:
            if self._opened is None:
                self._opened = self._newly_opened()
            return self._opened

    def _newly_opened(self) -> JobIndex:
        """Open the index; a moment after a failure the same error is raised, so that callers don't wait in turn."""
        if self._refused is not None and time.monotonic() < self._next_opening:
            raise VideosUnavailable(
                self._refused.detail, hint=self._refused.hint, retry_after=self._refused.retry_after
            ) from self._refused.__cause__
        try:
            index = self._open_index()
        except VideosUnavailable as error:
            self._refused, self._next_opening = error, time.monotonic() + LOOK_S
            raise
        index.start(self._options.concurrency, self._runner.wake)
        return index

    def _job(self, job_id: str, only: str | None) -> Job:
        job = self._index.get(job_id)
        if job is None or only not in (None, job.made_by):
            raise VideoNotFound(f"there is no video {job_id[:64]!r}")
        return job

    def _manifest(self, job: Job) -> dict[str, Any] | None:
        try:
            found = manifests.read_whole(self._files.results(job))
        except OSError as error:
            raise VideosUnavailable("the results can't be read now", retry_after=_RETRY_AFTER_S) from error
        if found is None:
            return None
        if self._files.shared and hashlib.sha256(found[0]).hexdigest() != job.manifest_sha256:
            raise VideosUnavailable(
                "the manifest isn't the one that was recorded", retry_after=_RETRY_AFTER_S
            )
        return found[1]

    def _analyst(self, profile: Profile) -> Analyst:
        return Analyst(profile, LoadedSuite(self._pipelines, self._options.analysis))

    def _keep_house(self) -> None:
        """Loop of the housekeeping thread: stop and remove deleted jobs, remove old ones and files without a job."""
        swept = -_RETENTION_S
        while not self._closing.wait(LOOK_S):
            try:
                self._stop_deleted()
                if self._opened is not None:
                    self._opened.keys.release_left()
                if time.monotonic() - swept > _RETENTION_S:
                    swept = time.monotonic()
                    self._sweep()
            except VideosUnavailable as error:
                self._runner.say(error)
            except OSError as error:  # no descriptor, or no room: it passes
                self._runner.say(VideosUnavailable(str(error)))
            except Exception:  # noqa: BLE001  # the thread must outlive whatever it meets
                _log.exception("keeping the videos' folder failed; it is tried again")

    def _stop_deleted(self) -> None:
        self._runner.stop_deleted()
        if self._fetcher is not None:
            self._fetcher.stop_deleted()

    def _refuse_webhooks(self) -> None:
        """End deliveries that were promised under other settings."""
        refused = self._index.callbacks.refuse(NO_HOSTS)
        self._outcomes["refused"].inc(refused)
        if refused:
            _log.warning("%d webhooks are refused: %s", refused, NO_HOSTS)

    def _sweep(self) -> None:
        if self._webhooks is None:
            self._refuse_webhooks()
        if self._fetcher is None:
            refuse_all(self._index, self._files)
        for job_id in self._index.expired(time.time(), self._options.keep_s, self._options.keep_bytes):
            _log.info("video %s is removed: it is too old, or there is too much", job_id)
            self._index.mark_deleted(job_id)
        self._runner.remove_deleted()
        self._files.remove_uploads(time.time() - _UPLOAD_S)
        self._remove_orphans()
        self._index.reserve()

    def _remove_orphans(self) -> None:
        """Remove the folders of jobs that the index doesn't know: those of submissions that a crash cut off."""
        folders = self._files.folders() - self._submitting
        unknown = folders - self._index.ids()
        if unknown:  # another worker may be about to submit one; looked at after the folders were
            older_than = None if self._index.alone() else time.time() - _ORPHAN_S
            for job_id in self._files.remove_orphans(unknown, older_than):
                _log.info("video %s is removed: no job belongs to this folder", job_id)


def _id(key: Held | None) -> str:
    """Return the id of a new job: the one that its Idempotency-Key was reserved for, if it has one."""
    return uuid.uuid4().hex if key is None else key.job_id


def _callback_view(callback: Callback | None, job: Job) -> dict[str, Any] | None:
    """Return a callback as the caller sees it; times in seconds since 1970."""
    if callback is None:
        return None
    view = asdict(callback)
    for hidden in ("job_id", "owner", "due"):
        del view[hidden]
    waits = callback.state == "waiting" and job.state in FINISHED
    view["next_attempt"] = max(callback.due, job.finished or 0.0) if waits else None
    return view
