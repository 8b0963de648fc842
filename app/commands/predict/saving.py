"""Files that a run leaves: written whole or not at all, and never over what is there unless that is allowed."""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from app.commands.predict.errors import NoInput
from app.commands.predict.inputs import Input
from app.videos.names import shown

_OF_VIDEOS = ("mp4", "ndjson")


class Saver:
    """Writes `<folder>/<target>.<command>.<kind>`.

    Args:
        folder: it is made when it is needed.
        command: `detect`, `depth`, ….
        overwrite: files that are there may be replaced.
    """

    def __init__(self, folder: Path, command: str, *, overwrite: bool) -> None:
        self.folder = folder
        self._command = command
        self._overwrite = overwrite
        self._unfinished: set[Path] = set()

    def check(self, entries: Iterable[Input], kinds: Iterable[str]) -> None:
        """Refuse a run whose files are there already, before anything is computed.

        Raises:
            NoInput: some are, or the folder can't be made or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            said = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
            raise NoInput(f"--save {shown(self.folder)}: {said}") from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise NoInput(f"--save {shown(self.folder)}: it can't be written")
        if self._overwrite:
            return
        kinds = tuple(kinds)
        there = [
            path
            for entry in entries
            for kind in _kinds_of(entry, kinds)
            if (path := self.path(entry, kind)).exists()
        ]
        if there:
            more = f" and {len(there) - 1} more are" if len(there) > 1 else " is"
            raise NoInput(
                f"{shown(there[0])}{more} there already: --overwrite replaces them, or name another folder"
            )

    def path(self, entry: Input, kind: str) -> Path:
        """Return the path of an input's file."""
        return self.folder / f"{entry.target}.{self._command}.{kind}"

    def bytes(self, entry: Input, kind: str, content: bytes) -> str:
        """Write a file; answers its name, as it may be printed.

        Raises:
            OSError: it can't be written.
        """
        with self.fresh(entry, kind) as path:
            path.write_bytes(content)
        return shown(self.path(entry, kind))

    def json(self, entry: Input, document: Mapping[str, Any]) -> str:
        """Write the whole answer; see `bytes`."""
        return self.bytes(entry, "json", json.dumps(document, indent=1).encode() + b"\n")

    @contextlib.contextmanager
    def fresh(self, entry: Input, kind: str) -> Iterator[Path]:
        """A path to write to, which becomes the file when what is done inside is done.

        Raises:
            OSError: it can't be written.
        """
        path = self.path(entry, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._unfinished.add(fresh)
        try:
            yield fresh
            if fresh.exists():  # a video without a frame has no picture either
                fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
            self._unfinished.discard(fresh)

    def abandon(self) -> None:
        """Remove what is unfinished; the process ends at once."""
        for path in tuple(self._unfinished):
            for left in path.parent.glob(
                f"*{glob.escape(path.name)}*"
            ):  # a video's writer has a file of its own beside it
                with contextlib.suppress(OSError):
                    left.unlink()


def _kinds_of(entry: Input, kinds: Iterable[str]) -> list[str]:
    """Return the files that may be written for an input, judging by its name."""
    return [kind for kind in kinds if not (entry.is_picture if kind in _OF_VIDEOS else entry.is_video)]
