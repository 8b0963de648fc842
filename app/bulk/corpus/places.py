"""Videos of folders, buckets and patterns, found one after another."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.bulk.corpus.names import Place, SourceError
from app.videos.names import is_video, shown
from app.videos.stores.opened import open_store

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Found:
    """A video, or a folder that can't be read."""

    place: Place
    fault: str | None = None


def has_pattern(text: str) -> bool:
    return _MAGIC.search(text) is not None


def below(folder: Place) -> Iterator[Found]:
    """Yield the videos of a folder or a bucket's prefix, at any depth."""
    return _in_bucket(folder) if folder.remote else _in_folder(folder.path)


def matching(pattern: Place) -> Iterator[Found]:
    """Yield the videos whose path matches: `*` and `?` within a folder, `**` at any depth.

    Raises:
        SourceError: a range of the pattern ends before it begins, such as `[z-a]`.
    """
    try:
        fits = re.compile(expression(pattern.path), re.DOTALL)
    except re.error as error:
        raise SourceError(f"{shown(pattern.uri)} is no pattern: {error.msg}") from error
    for found in below(before_pattern(pattern)):
        if found.fault is not None or fits.fullmatch(found.place.path):
            yield found


def before_pattern(pattern: Place) -> Place:
    """Return the deepest folder that every match lies in."""
    parts = pattern.path.split("/")
    first = next(number for number, part in enumerate(parts) if has_pattern(part))
    path = "/".join(parts[:first])
    return Place(pattern.remote, path if pattern.remote else path or "/")


def expression(pattern: str) -> str:
    """Return the regular expression of a pattern of the shell."""
    made, at = "", 0
    while at < len(pattern):
        rest = pattern[at:]
        if rest.startswith("**/"):
            made, at = made + "(?:.*/)?", at + 3
        elif rest.startswith("**"):
            made, at = made + ".*", at + 2
        elif rest[0] in "*?":
            made, at = made + ("[^/]*" if rest[0] == "*" else "[^/]"), at + 1
        elif found := re.match(r"\[(!?)(\]?[^\]/]*)\]", rest):
            inside = re.sub(r"[\\\[&|~]", r"\\\g<0>", found[2])
            made, at = made + f"[{'^' if found[1] else ''}{inside}]", at + found.end()
        else:
            made, at = made + re.escape(rest[0]), at + 1
    return made


def _in_bucket(prefix: Place) -> Iterator[Found]:
    for stored in open_store(prefix.uri).list():
        if is_video(stored.name):
            yield Found(Place(remote=True, path=f"{prefix.path}/{stored.name}"))


def _in_folder(folder: str) -> Iterator[Found]:
    """Walk in the order of the names. The names of one folder are in memory, not those of all."""
    waiting = [_listed(folder)]
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
        elif isinstance(found, str):
            waiting.append(_listed(found))
        else:
            yield found


def _listed(folder: str) -> Iterator[str | Found]:
    """Yield what a folder holds: the path of a folder, or a video. Links to folders are not followed."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if is_video(entry.name) or entry.is_dir(follow_symlinks=False)
            )
    except OSError as error:
        yield Found(Place(remote=False, path=folder), error.strerror or "the folder can't be read")
        return
    for name, is_folder in names:
        path = f"{folder.rstrip('/')}/{name}"
        yield path if is_folder else Found(Place(remote=False, path=path))
