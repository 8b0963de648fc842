"""Checkpoints of a video in chunks on disk: a process that dies loses only the chunk that it worked on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from app.media.npz import Blocks, write_npz
from app.pipelines.tally import Tally
from app.videos.components.base import Row
from app.videos.stores.base import PARTIAL, ArtifactStore
from app.videos.stores.folder import FolderStore, remove_unfinished

_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(slots=True)
class Chunk:
    """Consecutive samples: rows by component, and what comes after depends on."""

    first: int
    frame_index: list[int]
    time_s: list[float]
    rows: Mapping[str, list[Row]]
    nbytes: int = 0  # of the rows' arrays

    def add(self, component: str, row: Row) -> None:
        """One sample's row."""
        self.rows[component].append(row)
        self.nbytes += sum(column.nbytes for column in row.values())

    @classmethod
    def after(cls, done: int, components: Sequence[str]) -> Chunk:
        return cls(done, [], [], {name: [] for name in components})


@dataclass(frozen=True, slots=True)
class ChunkFolder:
    """A local folder of chunks; `written` is told of each one that is there."""

    path: Path
    written: Callable[[], None] = lambda: None


@runtime_checkable
class KeepsChunks(Protocol):
    """A store that keeps the chunks itself."""

    def chunks(self) -> AbstractContextManager[ChunkFolder]: ...


class Checkpoint:
    """Chunks of one video under one key; those of another key are thrown away.

    Args:
        folder: of its own.
        key: names all that the numbers depend on: input, configuration, models.
    """

    def __init__(self, folder: ChunkFolder, key: str) -> None:
        self._folder = folder.path
        self._written = folder.written
        self._key = key
        self._paths: list[Path] = []
        self.frames = 0
        self.states: dict[str, bytes] = {}
        self.tallies: dict[str, Tally] = {}
        self._load()

    def write(self, chunk: Chunk, states: Mapping[str, bytes], tallies: Mapping[str, Tally]) -> None:
        """Keep one more chunk; `states` and `tallies` are those after it.

        Raises:
            OSError: it can't be written.
        """
        arrays: dict[str, NDArray[Any] | Blocks] = {
            "key": np.array(self._key),
            "first": np.array(chunk.first, np.int64),
            "tallies": np.array(json.dumps({name: tally.to_dict() for name, tally in tallies.items()})),
            "frame_index": np.array(chunk.frame_index, np.int64),
            "time_s": np.array(chunk.time_s, np.float64),
        }
        for name, rows in chunk.rows.items():
            arrays |= {f"{name}/{key}": np.concatenate([row[key] for row in rows]) for key in rows[0]}
            arrays[f"{name}/state"] = np.frombuffer(states[name], np.uint8)
        path = self._folder / f"chunk-{len(self._paths):06d}.npz"
        write_npz(path, arrays)
        self._paths.append(path)
        self.frames += len(chunk.frame_index)
        self._written()

    def columns(self, component: str) -> ComponentColumns:
        """All rows of a component."""
        return ComponentColumns(self._paths, component, self.frames)

    def remove(self) -> None:
        """The video is done."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _load(self) -> None:
        """Load the complete, consecutive chunks that have the same key."""
        for path in sorted(self._folder.glob("chunk-*.npz")):
            header = _header(path)
            if header is None or header["key"] != self._key or header["first"] != self.frames:
                break
            self._paths.append(path)
            self.frames += header["frames"]
            self.states = header["states"]
            self.tallies = header["tallies"]
        for path in self._folder.glob("*"):
            if path not in self._paths:
                path.unlink()


def _header(path: Path) -> dict[str, Any] | None:
    """Return the header of a chunk, or None if it is damaged."""
    try:
        # NumPy leaves a file that it opened to the garbage collector if the file is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as chunk:
            documents = json.loads(str(chunk["tallies"]))
            return {
                "key": str(chunk["key"]),
                "first": int(chunk["first"]),
                "frames": len(chunk["frame_index"]),
                "states": {
                    name: chunk[f"{name}/state"].tobytes() for name in documents if f"{name}/state" in chunk
                },
                "tallies": {name: Tally.restored(document) for name, document in documents.items()},
            }
    except _DAMAGED:
        return None


class ComponentColumns:
    """A component's columns over all chunks; `frame_index` and `time_s` are common to all. See `components.Columns`."""

    def __init__(self, paths: Sequence[Path], component: str, frames: int) -> None:
        self._paths = paths
        self._component = component
        self.frames = frames

    def chunks(self, *names: str) -> Iterator[tuple[NDArray[Any], ...]]:
        keys = [name if name in ("frame_index", "time_s") else f"{self._component}/{name}" for name in names]
        for path in self._paths:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as chunk:
                columns = tuple(chunk[key] for key in keys)
            yield columns

    def blocks(self, name: str, dtype: type[Any] | None = None) -> Blocks:
        (first,) = next(self.chunks(name))
        shape = (self.frames, *first.shape[1:])
        return Blocks(shape, np.dtype(dtype or first.dtype), (column for (column,) in self.chunks(name)))


@contextlib.contextmanager
def checkpoint_folder(output: ArtifactStore) -> Iterator[ChunkFolder]:
    """Context manager with the local folder of a video's checkpoints: that of a store which keeps them, or beside the
    artefacts, or else a temporary one.

    Another attempt at the same video on this host has the folder to itself; this one then gets another, empty one.
    """
    if isinstance(output, KeepsChunks):
        with output.chunks() as chunks:
            yield chunks
        return
    folder = _folder(output)
    with locked(_lock(folder)) as mine:
        if mine:
            yield ChunkFolder(folder)
            return
        with tempfile.TemporaryDirectory(prefix="gateway-") as other:
            yield ChunkFolder(Path(other) / PARTIAL)


def remove_left_over(output: ArtifactStore, run_id: str) -> None:
    """Remove the chunks of a finished run whose process died between its manifest and their removal.

    Files that a killed process was writing go, too. Chunks of another run stay, and so do those that another attempt
    works on. What can't be removed stays, too.
    """
    if isinstance(output, KeepsChunks):
        return
    remove_unfinished(output)
    with contextlib.suppress(OSError):
        folder = _folder(output)
        if not folder.exists() and not _lock(folder).exists():
            return
        with locked(_lock(folder)) as mine:
            if mine and _is_of(folder, run_id):
                shutil.rmtree(folder)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Lock a file and yield True, or False if somebody else holds it. The file is removed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have finished and removed the file; a lock on a removed file excludes nobody.
            mine = path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino
        except BlockingIOError:
            mine = False
        try:
            yield mine
        finally:
            if mine:
                path.unlink(missing_ok=True)


def _folder(output: ArtifactStore) -> Path:
    return output.folder / PARTIAL if isinstance(output, FolderStore) else _scratch() / _key(output.url)


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _is_of(folder: Path, run_id: str) -> bool:
    """Return True if the chunks are those of a run, or none of them can be read."""
    first = min(folder.glob("chunk-*.npz"), default=None)
    header = None if first is None else _header(first)
    return header is None or header["key"].startswith(run_id)


def _scratch() -> Path:
    """Return this user's own folder below the temporary one.

    Raises:
        PermissionError: somebody else made it.
    """
    folder = Path(tempfile.gettempdir()) / f"gateway-checkpoints-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode):
        raise PermissionError(errno.EPERM, f"{folder} belongs to another user: set TMPDIR", str(folder))
    return folder


def _key(url: str) -> str:
    return hashlib.sha256(url.encode(errors="surrogateescape")).hexdigest()[:32]
