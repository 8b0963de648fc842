"""The files of jobs in an artefact store: any gateway finds them, and none sees those of another claim.

`<id>/profile.json`, `<id>/input-<attempt>` and `<id>/<fence>/…`, whose fence the job's row names. Uploads, downloads of
sources and what a decoder reads lie in a local folder meanwhile.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from app.state.jobs import Job
from app.state.sources import Source
from app.videos.job_files import JobFiles, is_id
from app.videos.profile import Profile
from app.videos.stored_jobs.results import CHECKPOINT, FencedResults
from app.videos.stored_jobs.scratch import Scratch
from app.videos.stores.base import ArtifactStore
from app.videos.stores.folder import FolderStore

_BLOCK_BYTES = 1 << 20
_LOOK_S = 600.0  # between two looks for files of no job; a submission takes less


class StoredJobFiles(JobFiles):
    """See `JobFiles`.

    Args:
        folder: local, for what is temporary.
        store: for all that stays.
    """

    shared = True

    def __init__(self, folder: Path, store: ArtifactStore) -> None:
        super().__init__(folder)
        self._store = store
        self._lock = threading.Lock()
        self._own: Scratch | None = None
        self._fetched: dict[str, int] = {}  # by job: the attempt whose part of a source lies here
        self._unknown: set[str] = set()
        self._looked = -_LOOK_S

    @property
    def incoming(self) -> Path:
        return self._scratch / "incoming"

    @property
    def _scratch(self) -> Path:
        """The folder of this process; those of processes that died are removed.

        Raises:
            OSError: it can't be made.
        """
        with self._lock:
            if self._own is None:
                self._own = Scratch(self._folder / ".scratch")
            return self._own.folder

    def close(self) -> None:
        with self._lock:
            if self._own is not None:
                self._own.close()
                self._own = None

    def keep(self, job_id: str, upload: BinaryIO | None, profile: Profile) -> None:
        try:
            self._store.put(f"{job_id}/profile.json", json.dumps(profile.to_dict()).encode())
            if upload is not None:
                upload.flush()
                self._put_input(job_id, 0, Path(upload.name))
        except OSError:
            with contextlib.suppress(OSError):
                self.remove(job_id)
            raise

    def profile_text(self, job_id: str) -> str:
        with self._store.open(f"{job_id}/profile.json") as file:
            return file.read().decode()

    @contextmanager
    def input_file(self, job: Job, attempt: int, check: Callable[[], None]) -> Iterator[Path]:
        with self._store.open(_input(job.id, attempt)) as file, self._temporary("input-") as copy:
            while block := file.read(_BLOCK_BYTES):
                check()
                copy.write(block)
            copy.flush()
            yield Path(copy.name)

    def has_input(self, job_id: str, attempt: int) -> bool:
        return self._store.size(_input(job_id, attempt)) is not None

    def begin_fetch(self, source: Source) -> Path:
        path = self.partial(source.job_id)
        if self._fetched.get(source.job_id) != source.attempts - 1:  # the last attempt was another host's
            path.unlink(missing_ok=True)
        self._fetched[source.job_id] = source.attempts
        return path

    def partial(self, job_id: str) -> Path:
        return self._scratch / f"{job_id}.partial"

    def arrived(self, source: Source) -> None:
        path = self.partial(source.job_id)
        self._put_input(source.job_id, source.attempts, path)
        path.unlink(missing_ok=True)
        self._fetched.pop(source.job_id, None)

    def results(self, job: Job) -> FencedResults:
        return FencedResults(self._store.within(job.id), job.fence, self._scratch)

    def file(self, job: Job, name: str) -> BinaryIO:
        """Open an artefact as a local file; the copy of an object has no name, and the time of the job's end."""
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self.results(job).open(name))
            with contextlib.suppress(io.UnsupportedOperation):
                file.fileno()
                stack.pop_all()
                return file
            copy = stack.enter_context(self._unnamed())
            shutil.copyfileobj(file, copy, _BLOCK_BYTES)
            copy.flush()
            copy.seek(0)
            moment = job.finished or 0.0
            os.utime(copy.fileno(), (moment, moment))
            file.close()
            stack.pop_all()
            return copy

    def settle(self, job: Job) -> None:
        """Remove what isn't needed once the job is over: inputs, checkpoints, and what other claims wrote."""
        mine = (f"{job.id}/profile.json", f"{job.id}/{job.fence}/")
        for stored in list(self._store.list(job.id)):
            if not stored.name.startswith(mine) or stored.name.startswith(f"{mine[1]}{CHECKPOINT}/"):
                self._store.delete(stored.name)

    def kept_bytes(self, job: Job) -> int:
        return sum(
            stored.nbytes
            for stored in self._store.list(f"{job.id}/{job.fence}")
            if not stored.name.startswith(f"{job.id}/{job.fence}/{CHECKPOINT}/")
        )

    def remove(self, job_id: str) -> None:
        """Remove all that belongs to a job.

        Raises:
            OSError: not now.
        """
        self.partial(job_id).unlink(missing_ok=True)
        for stored in list(self._store.list(job_id)):
            self._store.delete(stored.name)
        if isinstance(self._store, FolderStore):  # the folders themselves
            shutil.rmtree(self._store.folder / job_id, ignore_errors=True)

    def remove_uploads(self, older_than: float | None = None) -> None:
        """Remove old uploads and old parts of sources; those of processes that died were removed at the start."""
        if older_than is None:
            return
        for path in (*self.incoming.glob("*.upload"), *self._scratch.glob("*.partial")):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < older_than:
                    path.unlink()

    def folders(self) -> set[str]:
        """Return the ids of all jobs that have files, or none at all where they were listed a short time ago."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return set()
        self._looked = now
        names = (stored.name.partition("/")[0] for stored in self._store.list())
        return {name for name in names if is_id(name)}

    def remove_orphans(self, candidates: Set[str], older_than: float | None) -> list[str]:  # noqa: ARG002  # a store tells no time
        """Remove the files of those ids that were candidates at an earlier look, too; return which went."""
        gone = sorted(candidates & self._unknown)
        self._unknown = set(candidates)
        for job_id in gone:
            self.remove(job_id)
        return gone

    def _put_input(self, job_id: str, attempt: int, path: Path) -> None:
        with path.open("rb") as file, self._store.writing(_input(job_id, attempt)) as target:
            shutil.copyfileobj(file, target, _BLOCK_BYTES)

    @contextmanager
    def _temporary(self, prefix: str) -> Iterator[BinaryIO]:
        with tempfile.NamedTemporaryFile(dir=self._scratch, prefix=prefix) as file:
            yield cast(BinaryIO, file)

    def _unnamed(self) -> BinaryIO:
        return cast(BinaryIO, tempfile.TemporaryFile(dir=self._scratch))


def _input(job_id: str, attempt: int) -> str:
    """Return the name of a job's video; one that is fetched has another name at each attempt."""
    return f"{job_id}/input-{attempt}"
