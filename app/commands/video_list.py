"""The videos that `gateway analyze` is given: files, folders, and lists in any encoding."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app.videos.names import is_video, shown
from app.videos.stores.base import StoreUnusable
from app.videos.stores.opened import bucket_and_key

_BOMS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_ANOTHER_SYSTEMS = ("cp1252", "latin-1")  # what names and lists are in that are no UTF-8
_NO_VIDEO = "no such video"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Entry:
    """One video: `name` is its path below the root that was given, and below the output.

    `fault` says why it can't be read. `url` is that of an object in a bucket, whose `path` is its bucket and key.
    """

    path: Path
    name: str
    fault: str | None = None
    url: str | None = None

    @property
    def uri(self) -> str:
        return self.url or str(self.path)


def found_videos(named: Sequence[str | Path]) -> list[Entry]:
    """Every video that paths and URLs name, in their order; those that can't be read have a fault.

    Raises:
        RuntimeError: there is none, or none of the files that were named is there.
    """
    entries = [entry for one in named for entry in _entries(str(one))]
    if not entries:
        raise RuntimeError("there is no video")
    paths = {Path(one) for one in named}
    if all(entry.fault == _NO_VIDEO and entry.path in paths for entry in entries):
        raise RuntimeError(f"no such video: {', '.join(shown(entry.path) for entry in entries)}")
    return _told_apart(entries)


def _entries(named: str) -> Iterator[Entry]:
    if _URL.match(named):
        yield _object(named)
        return
    path = Path(named)
    if os.path.isdir(path):  # noqa: PTH112  # unlike Path's, it answers for every name
        yield from _inside(path)
    elif path.suffix.lower() == ".txt" and os.path.isfile(path):  # noqa: PTH113
        yield from _listed(path)
    else:
        yield _entry(path, path.name)


def _entry(path: Path, name: str) -> Entry:
    return Entry(path, name, None if os.path.isfile(path) else _NO_VIDEO)  # noqa: PTH113


def _inside(folder: Path) -> Iterator[Entry]:
    """The videos of a folder and all below it, but for macOS's `._` files; a folder that can't be read is a fault."""
    faults: list[OSError] = []
    found = [
        Path(place, name)
        for place, _, names in os.walk(folder, onerror=faults.append)
        for name in names
        if is_video(name)
    ]
    for path in sorted(found):
        yield _entry(path, str(path.relative_to(folder)))
    for fault in faults:
        path = Path(fault.filename or folder)
        yield Entry(path, os.path.relpath(path, folder), fault.strerror or "can't be read")


def _object(url: str) -> Entry:
    """The object of an `s3://` URL; nothing is asked of the server yet."""
    try:
        bucket, key = bucket_and_key(url)
    except StoreUnusable as error:
        return Entry(Path(url.partition("://")[0]), "url", error.strerror, url.partition("://")[0] + "://…")
    path = Path(bucket, key)
    named = key and not key.endswith("/")
    return Entry(path, path.name, None if named else "names no object: gateway bulk takes prefixes", url)


def _listed(path: Path) -> Iterator[Entry]:
    """The videos of a list: one a line, relative to its folder; `#` begins a comment."""
    try:
        content = path.read_bytes()
    except OSError as error:
        yield Entry(path, path.name, error.strerror or "can't be read")
        return
    for spellings in _lines(content):
        if _URL.match(spellings[0]):
            yield _object(spellings[0])
            continue
        candidates = [path.parent / spelling for spelling in spellings]
        there = next((found for found in candidates if os.path.isfile(found)), candidates[0])  # noqa: PTH113
        yield _entry(there, _below(there, path.parent))


def _lines(content: bytes) -> Iterator[list[str]]:
    """The names of a list, each in the spellings that it may have on the disk, the likeliest first."""
    encoding = next((name for mark, name in _BOMS if content.startswith(mark)), None)
    if encoding is None and content.count(0) * 4 > len(
        content
    ):  # UTF-16 without its mark: zeros beside ASCII
        encoding = "utf-16-be" if content[::2].count(0) > content[1::2].count(0) else "utf-16-le"
    if encoding is not None:
        lines = re.split(r"\r\n|\r|\n", content.decode(encoding, "replace"))
        found = [_of_text(line.strip()) for line in lines]
    else:
        found = [_of_bytes(line.strip()) for line in re.split(rb"\r\n|\r|\n", content)]
    return (spellings for spellings in found if spellings[0] and not spellings[0].startswith("#"))


def _of_bytes(line: bytes) -> list[str]:
    """The file of exactly these bytes; else of this text on another system."""
    try:
        return _of_text(line.decode("utf-8"))
    except UnicodeDecodeError:
        return [os.fsdecode(line), *(line.decode(name, "replace") for name in _ANOTHER_SYSTEMS)]


def _of_text(line: str) -> list[str]:
    """The name as it stands, composed and decomposed (macOS), and as systems without UTF-8 wrote it."""
    composed, apart = (unicodedata.normalize(form, line) for form in ("NFC", "NFD"))
    others = (os.fsdecode(composed.encode(name, "replace")) for name in _ANOTHER_SYSTEMS)
    return list(dict.fromkeys((line, composed, apart, *others)))


def _below(path: Path, root: Path) -> str:
    """The path below the root; one that lies elsewhere keeps its whole path."""
    whole = os.path.abspath(path)  # noqa: PTH100  # without following links
    inside = os.path.relpath(whole, os.path.abspath(root))  # noqa: PTH100
    return whole.lstrip("/") if inside.startswith("..") else inside


def _told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """Different videos of one name, from different roots, are called by their whole paths."""
    places: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.fault is None:
            places[entry.name].add(entry.url or os.path.realpath(entry.path))
    return [replace(entry, name=_whole(entry)) if len(places[entry.name]) > 1 else entry for entry in entries]


def _whole(entry: Entry) -> str:
    """The whole path of a video, or the bucket and key of an object."""
    whole = str(entry.path) if entry.url else os.path.abspath(entry.path)  # noqa: PTH100
    return whole.lstrip("/")
