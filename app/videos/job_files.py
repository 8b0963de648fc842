"""The folder of the video jobs: what lies where, how much there is, and what belongs to no job."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, ClassVar

from app.state.jobs import Job
from app.state.sources import Source
from app.videos.profile import Profile
from app.videos.stores.base import ArtifactStore
from app.videos.stores.folder import FolderStore

# Errors of the operating system that pass: no room on the disk, no descriptors, no memory.
SHORTAGES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)
NO_ROOM = "the disk is full, or the service is out of file descriptors or memory"
_PROBE_BYTES = 1 << 16
_ID = re.compile(r"[0-9a-f]{32}")


class JobFiles:
    """`<id>/input`, `<id>/profile.json` and `<id>/output` of every job, and `.incoming` for uploads on their way."""

    shared: ClassVar[bool] = False
    """True for a store that several hosts write to: a manifest counts only with the digest in the job's row."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def incoming(self) -> Path:
        """Folder of uploads on their way."""
        return self._folder / ".incoming"

    def close(self) -> None:
        """Remove what is temporary, where nobody else uses it."""

    def input(self, job_id: str) -> Path:
        return self._folder / job_id / "input"

    def partial(self, job_id: str) -> Path:
        """The part of an input that has been fetched."""
        return self._folder / job_id / "input.partial"

    def profile(self, job_id: str) -> Path:
        return self._folder / job_id / "profile.json"

    def output(self, job_id: str) -> Path:
        return self._folder / job_id / "output"

    def profile_text(self, job_id: str) -> str:
        """Return the text of `profile.json`.

        Raises:
            OSError: it can't be read.
        """
        return self.profile(job_id).read_text(encoding="utf-8")

    @contextmanager
    def input_file(self, job: Job, attempt: int, check: Callable[[], None]) -> Iterator[Path]:  # noqa: ARG002  # it is there
        """Context manager with the path of a job's video.

        Args:
            job: see there.
            attempt: at its source which brought the video; 0: it was sent.
            check: called now and then; what it raises ends the work.

        Raises:
            OSError: it can't be read.
        """
        yield self.input(job.id)

    def has_input(self, job_id: str, attempt: int) -> bool:  # noqa: ARG002  # all attempts have one name
        """Return True while the job's video is there."""
        return self.input(job_id).exists()

    def begin_fetch(self, source: Source) -> Path:
        """Return the path of the part of a source that has been fetched, which the attempt continues."""
        return self.partial(source.job_id)

    def arrived(self, source: Source) -> None:
        """Let the file of a source that is complete be the job's video.

        Raises:
            OSError: it can't be moved.
        """
        self.partial(source.job_id).replace(self.input(source.job_id))

    def results(self, job: Job) -> ArtifactStore:
        """Return the store of a job's artefacts: those of the claim that the row names."""
        return FolderStore(self.output(job.id))

    def file(self, job: Job, name: str) -> BinaryIO:
        """Open one of a job's artefacts as a file of this host.

        Raises:
            OSError: it can't be read.
        """
        return self.results(job).open(name)

    def settle(self, job: Job) -> None:
        """Remove what isn't needed once the job is over."""
        self.input(job.id).unlink(missing_ok=True)

    def keep(self, job_id: str, upload: BinaryIO | None, profile: Profile) -> None:
        """Make the job's folder; the upload, a file in `incoming`, becomes its input (None: it is fetched later).

        Raises:
            OSError: there is no room. Nothing of the job is left then.
        """
        if upload is not None:
            upload.flush()
            os.fsync(upload.fileno())
        try:
            (self._folder / job_id).mkdir()
            self.profile(job_id).write_text(json.dumps(profile.to_dict()), encoding="utf-8")
            if upload is not None:
                Path(upload.name).replace(self.input(job_id))
        except OSError:
            self.remove(job_id)
            raise

    def remove(self, job_id: str) -> None:
        """Remove all that belongs to a job."""
        shutil.rmtree(self._folder / job_id, ignore_errors=True)

    def kept_bytes(self, job: Job) -> int:
        """Bytes of a job's files without its input, which goes when the job is over."""
        files = (path for path in (self._folder / job.id).rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files if path != self.input(job.id))

    def incoming_bytes(self) -> int:
        """Bytes of the uploads that are on their way."""
        total = 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self.incoming) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # it has become a job
                    total += entry.stat().st_size
        return total

    def has_room(self) -> bool:
        """A file of a few kB can be written now."""
        try:
            with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
                return file.write(bytes(_PROBE_BYTES)) == _PROBE_BYTES
        except OSError:
            return False

    def folders(self) -> set[str]:
        """Ids of all jobs that have a folder."""
        return {path.name for path in self._folder.iterdir() if is_id(path.name)}

    def remove_uploads(self, older_than: float | None = None) -> None:
        """Remove uploads that nobody continues: all, or those that nobody has written to since `older_than` (s)."""
        for path in self.incoming.glob("*.upload"):
            with contextlib.suppress(OSError):
                if older_than is None or path.stat().st_mtime < older_than:
                    path.unlink()

    def remove_orphans(self, candidates: Set[str], older_than: float | None) -> list[str]:
        """Remove folders of these ids: all, or those made before `older_than` (s since 1970); return which went."""
        gone = []
        for job_id in sorted(candidates):
            with contextlib.suppress(OSError):
                if older_than is None or (self._folder / job_id).stat().st_mtime < older_than:
                    self.remove(job_id)
                    gone.append(job_id)
        return gone


def is_id(name: str) -> bool:
    """Return True for the form of a job's id."""
    return _ID.fullmatch(name) is not None
