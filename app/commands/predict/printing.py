"""Output of a run: a table that grows row by row, or one JSON object a line; a bar where somebody watches."""

from __future__ import annotations

import contextlib
import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from app.commands.predict.errors import OutputLost

_WIDEST_NAME = 48


def plain(text: str) -> str:
    """Text as a terminal shows it and never obeys it: control characters and the like are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def width_of(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Text filled up with spaces to a width in columns."""
    space = " " * max(0, width - width_of(text))
    return space + text if right else text + space


class Printer:
    """Rows or JSON on stdout, remarks on stderr.

    Args:
        as_json: JSON instead of the table.
        names: of the inputs, for the width of their column.
        heading: of the last column.
        total: how many inputs there are, for the bar; there is one only on a terminal, and for more than one.
    """

    def __init__(self, names: Sequence[str], heading: str, total: int, *, as_json: bool) -> None:
        self._as_json = as_json
        self._name_width = min(_WIDEST_NAME, max([5, *map(width_of, names)]))
        self._heading = heading
        self._begun = False
        self._bar = tqdm(
            total=total,
            unit="input",
            file=sys.stderr,
            leave=False,
            disable=total < 2 or not sys.stderr.isatty(),
        )
        self._said: set[str] = set()

    def row(self, name: str, size: str, branch: str, ms: float | None, result: str) -> None:
        """A line of the table; nothing where JSON is wanted."""
        if self._as_json:
            return
        if not self._begun:
            self._begun = True
            self._line("input", "size", "branch", "ms", self._heading)
        self._line(name, size, branch, "" if ms is None else f"{ms:.0f}", result)

    def document(self, document: Mapping[str, Any]) -> None:
        """A line of JSON; nothing where the table is wanted."""
        if self._as_json:
            self._out(json.dumps(document))

    def note(self, text: str, *, once: bool = False) -> None:
        """A remark on stderr."""
        if once and text in self._said:
            return
        self._said.add(text)
        with contextlib.suppress(OSError):  # a remark that can't be written fails nobody's input
            tqdm.write(f"gateway: {plain(text)}", file=sys.stderr)

    def done(self) -> None:
        """One more input has its answer."""
        self._bar.update()

    def close(self) -> None:
        self._bar.close()

    def _line(self, name: str, size: str, branch: str, ms: str, result: str) -> None:
        cells = (padded(plain(name), self._name_width), padded(size, 9), padded(plain(branch), 14))
        self._out(f"{'  '.join(cells)}  {padded(ms, 6, right=True)}  {plain(result)}".rstrip())

    def _out(self, line: str) -> None:
        """Write and flush, so that a reader has every line at once, and a closed pipe is noticed."""
        hidden = contextlib.nullcontext() if self._bar.disable else tqdm.external_write_mode(sys.stdout)
        with hidden:
            try:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OutputLost(f"the output can't be written: {error.strerror or error}") from error
