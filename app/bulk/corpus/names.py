"""Places of videos, and the names that they get below the output."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from app.videos.names import shown

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


class SourceError(RuntimeError):
    """A source that can't be used; the words are for people."""


@dataclass(frozen=True, slots=True)
class Place:
    """An absolute path, or in a bucket `<bucket>/<key>`; `remote` tells them apart."""

    remote: bool
    path: str

    @property
    def uri(self) -> str:
        return f"s3://{self.path}" if self.remote else self.path

    @property
    def parent(self) -> Place:
        return Place(self.remote, self.path.rpartition("/")[0] or ("" if self.remote else "/"))

    @property
    def leaf(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.leaf)[1].lower()  # noqa: PTH122  # keys of a bucket are no paths


def place(text: str, folder: str | None = None) -> Place:
    """Return the place of a path, relative to `folder` or else to the working folder, or of a URI.

    Raises:
        SourceError: there is nothing, or it is a URI of another kind.
    """
    if not text.strip():
        raise SourceError("no path or URI is given")
    found = _SCHEME.match(text)
    scheme, rest = (found[1].lower(), text[found.end() :]) if found else ("", text)
    if scheme == "s3":
        return Place(remote=True, path=rest.strip("/"))
    if scheme == "file":
        return Place(remote=False, path=os.path.normpath(unquote(rest, errors="surrogateescape")))
    if scheme:
        raise SourceError(f"{scheme}:// is not supported: name a path or s3://bucket/key")
    if "\0" in text:
        raise SourceError("a path has no zero byte")
    whole = os.path.join(folder, text) if folder else text  # noqa: PTH118  # names that are no text stay as they are
    return Place(remote=False, path=os.path.abspath(whole))  # noqa: PTH100


def common(places: Sequence[Place]) -> Place | None:
    """Return the deepest folder that all places lie in; None where there is none."""
    if len({place.remote for place in places}) != 1:
        return None
    split = [place.path.split("/") for place in places]
    shared = 0
    for parts in zip(*split, strict=False):
        if len(set(parts)) != 1:
            break
        shared += 1
    path = "/".join(split[0][:shared])
    remote = places[0].remote
    return None if remote and not path else Place(remote, path or "/")


def name_of(video: Place, root: Place | None) -> str:
    """Return the name of a video: its path below the root, or its whole path if it lies elsewhere.

    Raises:
        SourceError: a part of it is `..`, which no file of the output can be called.
    """
    path = video.path
    if root is not None and root.remote == video.remote:
        below = root.path.rstrip("/") + "/"
        path = path.removeprefix(below) if path.startswith(below) else path
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise SourceError("a name with '..' can't be used")
    return shown("/".join(parts))
