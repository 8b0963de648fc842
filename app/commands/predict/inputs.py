"""The inputs of a run: files, folders, patterns, standard input and texts, each with a name of its own."""

from __future__ import annotations

import glob
import itertools
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from app.commands.predict.errors import InputFailed, NoInput
from app.hints import did_you_mean
from app.media.containers import HEAD_BYTES
from app.media.kinds import kind_of
from app.videos.names import SUFFIXES as VIDEOS
from app.videos.names import shown

PICTURES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp"})
# Pictures whose files get a line that says why they aren't read, where a folder holds them.
_UNREAD = frozenset({".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2"})
_VIDEO_KINDS = frozenset({"an MP4 or QuickTime file", "a Matroska or WebM file", "an AVI video"})
_MISSING = "no such file"
# Bytes of a saved file's name before its suffixes: file systems allow 255, and unfinished files have longer suffixes.
_LONGEST_NAME = 180
_LONGEST_PICTURE = (
    256 << 20
)  # bytes; four times what a gateway takes in one body, unless it is told otherwise
_PICTURE_KINDS = frozenset({"a JPEG picture", "a PNG picture", "a WebP picture", "a BMP picture"})


@dataclass(frozen=True, slots=True)
class Input:
    """One picture, video or text.

    `name` is printed and is safe to print; `target` is the path below `--save`, without a suffix. `path` is None for
    standard input and for a text. `fault` says why it can't be read.
    """

    name: str
    target: str
    path: Path | None = None
    text: str | None = None
    fault: str | None = None

    @property
    def is_picture(self) -> bool:
        """Its name says that it is a picture."""
        return self.path is not None and self.path.suffix.lower() in PICTURES

    @property
    def is_video(self) -> bool:
        """Its name says that it is a video."""
        return self.path is not None and self.path.suffix.lower() in VIDEOS

    def open(self) -> BinaryIO:
        """The content, from its beginning; standard input can be opened once.

        Raises:
            OSError: it can't be read.
        """
        return sys.stdin.buffer if self.path is None else self.path.open("rb")


@dataclass(frozen=True, slots=True)
class Content:
    """A picture's bytes, or a video in a file with a descriptor (its `size` in bytes)."""

    data: bytes = b""
    video: BinaryIO | None = None
    size: int = 0


def read(entry: Input) -> Content:
    """The content of an input. A video stays in its file; one that comes through a pipe gets a file without a name.

    Of a file of a kind that nobody serves (`/dev/zero`, a disk image) only the head is read, for which it is refused.

    Raises:
        InputFailed: it is larger than any picture that is read.
        OSError: it can't be read.
    """
    with entry.open() as file:
        head = file.read(HEAD_BYTES)
        kind = kind_of(head)
        if kind not in _VIDEO_KINDS:
            return Content(head + _rest(file) if kind in _PICTURE_KINDS else head)
        spool = _spooled(file, head)
    return Content(video=spool, size=os.fstat(spool.fileno()).st_size)


def _rest(file: BinaryIO) -> bytes:
    """Bytes of a picture after its head.

    Raises:
        InputFailed: it is too much.
    """
    pieces, size = [], 0
    while piece := file.read(1 << 20):
        pieces.append(piece)
        size += len(piece)
        if size > _LONGEST_PICTURE:
            raise InputFailed("payload_too_large", f"it is larger than {_LONGEST_PICTURE >> 20} MiB")
    return b"".join(pieces)


def _spooled(file: BinaryIO, head: bytes) -> BinaryIO:
    if file.seekable():
        video = os.fdopen(os.dup(file.fileno()), "rb")
        video.seek(0)
        return video
    spool = tempfile.TemporaryFile()  # noqa: SIM115  # whoever asked closes it
    spool.write(head)
    while piece := file.read(1 << 20):
        spool.write(piece)
    spool.flush()
    spool.seek(0)
    return spool


def found(words: Sequence[str], *, videos: bool) -> list[Input]:
    """Every input that the words name, in their order; those that can't be read have a fault.

    Args:
        words: paths, patterns, or `-`.
        videos: folders are searched for videos too.

    Raises:
        NoInput: there is none, or nothing that was named is there.
    """
    if words.count("-") > 1:
        raise NoInput("- is named twice; standard input can be read once")
    if "-" in words and sys.stdin.isatty():
        raise NoInput("- reads standard input, which is this terminal: redirect a file to it (< picture.jpg)")
    wanted = PICTURES | _UNREAD | (VIDEOS if videos else frozenset())
    entries = [entry for word in words for entry in _entries(word, wanted)]
    if not entries:
        what = "picture or video" if videos else "picture"
        raise NoInput(
            f"there is no {what} in {shown(words[0])}{_and_more(len(words) - 1)}"
            if words
            else f"name at least one {what}, a folder, a pattern, or - for standard input"
        )
    if all(entry.fault is not None for entry in entries):
        raise NoInput(f"{entries[0].fault}: {entries[0].name}" + _and_more(len(entries) - 1))
    return told_apart(entries)


def texts(words: Sequence[str]) -> list[Input]:
    """An input a text."""
    return [Input(shown(word), f"text-{number}", text=word) for number, word in enumerate(words, 1)]


def pairs(entries: Sequence[Input], *, consecutive: bool) -> list[tuple[Input, Input]]:
    """Two by two, or each with the next.

    Raises:
        NoInput: the number of pictures doesn't allow it.
    """
    if len(entries) < 2:
        raise NoInput("flow takes two pictures: the earlier and the later frame")
    if consecutive:
        return list(itertools.pairwise(entries))
    if len(entries) % 2:
        raise NoInput(
            f"{len(entries)} pictures can't be split into pairs; --consecutive pairs each with the next one"
        )
    return list(zip(entries[::2], entries[1::2], strict=True))


def told_apart(entries: Iterable[Input]) -> list[Input]:
    """Entries whose targets differ, also where the file system takes upper and lower case for the same."""
    taken: set[str] = set()
    latest: dict[str, int] = {}
    apart = []
    for entry in entries:
        target, folded = entry.target, entry.target.casefold()
        number = latest.get(folded, 1)
        while target.casefold() in taken:
            number += 1
            target = f"{entry.target}-{number}"
        taken.add(target.casefold())
        latest[folded] = number
        apart.append(replace(entry, target=target))
    return apart


def _entries(word: str, wanted: frozenset[str]) -> Iterator[Input]:
    if word == "-":
        yield Input("-", "stdin")
        return
    if os.path.isdir(word):  # noqa: PTH112  # unlike Path's, it answers for every name
        yield from _inside(Path(word), wanted)
        return
    if not os.path.lexists(word):  # ditto
        matches = sorted(glob.glob(word, recursive=True)) if glob.has_magic(word) else []  # noqa: PTH207  # ditto
        if matches:
            for match in matches:
                yield from _entries(match, wanted)
            return
    yield _entry(Path(word), _stem(Path(word).name))


def _entry(path: Path, target: str) -> Input:
    return Input(shown(path), target, path, fault=None if os.path.exists(path) else _missing(path))  # noqa: PTH110


def _missing(path: Path) -> str:
    text = str(path)
    if path.is_symlink():
        return f"{_MISSING}: it is a link to {shown(path.readlink())}"
    if text.startswith(("http:/", "https:/")):
        return "an address is not read: fetch it, such as curl -s URL | gateway detect -"
    if glob.has_magic(text):
        return f"{_MISSING}, and the pattern fits none"
    try:
        hint = did_you_mean(path.name, [shown(name) for name in os.listdir(path.parent)])  # noqa: PTH208
    except (OSError, ValueError):
        hint = ""
    return _MISSING + hint


def _inside(folder: Path, wanted: frozenset[str]) -> Iterator[Input]:
    """The pictures of a folder and all below it, but for hidden ones; a folder that can't be read is a fault."""
    faults: list[OSError] = []
    paths = [
        Path(place, name)
        for place, _, names in os.walk(folder, onerror=faults.append)
        for name in names
        if Path(name).suffix.lower() in wanted and not name.startswith(".")
    ]
    for path in sorted(paths):
        below = path.relative_to(folder)
        yield _entry(path, str(below.with_name(_stem(below.name))))
    for fault in faults:
        path = Path(fault.filename or folder)
        yield Input(shown(path), _stem(path.name), path, fault=fault.strerror or "can't be read")


def _stem(name: str) -> str:
    """The name without its suffix, short enough to get others, and without what a terminal would obey."""
    text = shown(Path(name).stem).encode()[:_LONGEST_NAME]
    return text.decode("utf-8", "ignore").replace("/", "_") or "input"


def _and_more(count: int) -> str:
    return f" (and {count} more)" if count > 0 else ""
