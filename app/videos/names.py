"""Names of video files: by which suffixes they are found, and how they are shown."""

from __future__ import annotations

import os
from pathlib import Path

# Containers that are read, and others whose files are found, too, and get a line that says why they aren't read.
SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi"})
_UNREAD = frozenset(
    {
        ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".m2v", ".vob", ".flv", ".f4v", ".wmv", ".asf", ".ogv", ".ogm",
        ".rm", ".rmvb", ".3g2", ".mxf", ".dv", ".y4m",
    }
)  # fmt: skip
_FOUND = SUFFIXES | _UNREAD


def is_video(name: str) -> bool:
    """Return True for the name of a video, and False for other files and those that macOS leaves beside them."""
    leaf = name.rpartition("/")[2]
    return os.path.splitext(leaf)[1].lower() in _FOUND and not leaf.startswith("._")  # noqa: PTH122  # keys are no paths


def encodable(text: str) -> str:
    """Return a text that UTF-8 can encode: bytes of a file's name that are no UTF-8 are escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def shown(text: str | Path) -> str:
    """Return a name as every terminal, file system and reader of JSON takes it: what can't be printed is escaped."""
    known = encodable(str(text))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in known)
