"""A copy of the folder of the video jobs while they run.

The files are copied first, then the index, through SQLite's own backup. A job that came or ended in between may lack a
file, which another round copies. A manifest is copied before the files that it lists, since it is written after them.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from app.state.job_schema import INDEX
from app.videos.job_files import is_id

_ROUNDS = 10
_FETCHING = "SELECT job_id FROM sources WHERE state IN ('waiting', 'fetching')"


class Unsettled(Exception):
    """Jobs came and ended faster than they could be copied."""


def back_up(folder: Path, target: Path, *, files: bool = True) -> tuple[int, int]:
    """Copy the jobs to `target`, an empty folder or none; return the number of jobs, and of bytes of their files.

    Args:
        folder: of the jobs.
        target: of the copy; it may be the folder of another service.
        files: copy the videos and results too.

    Raises:
        OSError: something can't be read or written.
        Unsettled: there was no moment at which the copy was complete.
    """
    target.mkdir(parents=True, exist_ok=True)
    for _ in range(_ROUNDS):
        if files:
            _copy_files(folder, target)
        states = _copy_index(folder / INDEX, target / INDEX)
        if not files or all(_is_whole(target / job_id, state) for job_id, state in states.items()):
            break
    else:
        raise Unsettled("jobs come and end faster than they are copied: try again, or stop the service first")
    for path in target.iterdir():
        if is_id(path.name) and path.name not in states:  # it was deleted meanwhile
            shutil.rmtree(path)
    return len(states), sum(path.stat().st_size for path in _files(target))


def _copy_files(folder: Path, target: Path) -> None:
    for job in (path for path in folder.iterdir() if is_id(path.name)):
        for path in sorted(_files(job), key=lambda path: path.name != "manifest.json"):
            copy = target / path.relative_to(folder)
            with contextlib.suppress(FileNotFoundError):  # the job has ended, or was deleted
                facts = path.stat()
                if copy.exists() and (copy.stat().st_size, copy.stat().st_mtime_ns) == (
                    facts.st_size,
                    facts.st_mtime_ns,
                ):
                    continue
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder of jobs, without locks."""
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".lock" and not path.name.startswith(INDEX):
            yield path


def _copy_index(index: Path, copy: Path) -> dict[str, str]:
    """Copy the database; return the states of its jobs by their ids. Jobs whose videos aren't there are `fetching`."""
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=rw", uri=True)) as source,
            contextlib.closing(sqlite3.connect(copy)) as made,
        ):
            source.backup(made)
            (fault,) = made.execute("PRAGMA integrity_check").fetchone()
            if fault != "ok":
                raise OSError(f"the index of the video jobs is damaged: {fault}")
            states = dict(made.execute("SELECT id, state FROM jobs WHERE state != 'deleted'").fetchall())
            if made.execute("SELECT 1 FROM sqlite_master WHERE name = 'sources'").fetchone():
                states |= {row[0]: "fetching" for row in made.execute(_FETCHING) if row[0] in states}
            return states
    except sqlite3.Error as error:
        raise OSError(f"the index of the video jobs can't be copied: {error}") from error


def _is_whole(job: Path, state: str) -> bool:
    """True if a job's folder has what its state needs."""
    if state == "done":
        return any(job.rglob("manifest.json"))
    needed = {
        "queued": ("profile.json", "input"),
        "running": ("profile.json", "input"),
        "fetching": ("profile.json",),
    }
    return all((job / name).is_file() for name in needed.get(state, ()))
