"""The results of one claim of a job, in a folder of a store that no other claim writes to."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from app.videos.checkpoint import ChunkFolder
from app.videos.stores.base import ArtifactStore, Stored

_log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint"


class FencedResults:
    """See `ArtifactStore`, and `KeepsChunks` for the checkpoints.

    Args:
        job: the store of the job.
        fence: the number of the claim.
        scratch: a local folder for what is temporary.
    """

    def __init__(self, job: ArtifactStore, fence: int, scratch: Path) -> None:
        self._job = job
        self._fence = fence
        self._store = job.within(str(fence))
        self._scratch = scratch

    @property
    def url(self) -> str:
        return self._store.url

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        return self._store.writing(name)

    def put(self, name: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        return self._store.put(name, data, only_if_absent=only_if_absent)

    def open(self, name: str) -> BinaryIO:
        return self._store.open(name)

    def size(self, name: str) -> int | None:
        return self._store.size(name)

    def list(self, prefix: str = "") -> Iterator[Stored]:
        return self._store.list(prefix)

    def delete(self, name: str) -> None:
        self._store.delete(name)

    def within(self, prefix: str) -> ArtifactStore:
        return self._store.within(prefix)

    @contextmanager
    def chunks(self) -> Iterator[ChunkFolder]:
        """Context manager with a local folder that begins with the chunks of the claim before, and is copied to the
        store chunk by chunk. A chunk that can't be copied now goes with the next one.
        """
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="chunks-") as name:
            folder, copied = Path(name), set[str]()
            self._restore(folder)

            def kept() -> None:
                try:
                    for chunk in sorted(folder.glob("chunk-*.npz")):
                        if chunk.name not in copied:
                            self._copy(chunk)
                            copied.add(chunk.name)
                except OSError as error:
                    _log.warning("a checkpoint isn't kept yet: %s", error.strerror)

            yield ChunkFolder(folder, kept)

    def _restore(self, folder: Path) -> None:
        """Copy the chunks of the last claim that left any."""
        found: dict[int, set[str]] = {}
        for stored in self._job.list():
            fence, _, name = stored.name.partition(f"/{CHECKPOINT}/")
            if name and fence.isdecimal() and int(fence) < self._fence:
                found.setdefault(int(fence), set()).add(name)
        if not found:
            return
        before = self._job.within(f"{max(found)}/{CHECKPOINT}")
        for name in found[max(found)]:
            with (
                contextlib.suppress(FileNotFoundError),  # the job was deleted
                before.open(name) as file,
                (folder / name).open("wb") as target,
            ):
                shutil.copyfileobj(file, target)

    def _copy(self, chunk: Path) -> None:
        with self._store.writing(f"{CHECKPOINT}/{chunk.name}") as target, chunk.open("rb") as file:
            shutil.copyfileobj(file, target)
