"""Hints for names that nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 100  # characters of a name that are compared


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the known name that is most like `name`; empty where none is."""
    near = difflib.get_close_matches(name[:_LONGEST], list(known), 1, 0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
