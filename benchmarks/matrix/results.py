"""Files of a run in progress: `results.jsonl`, appended, and `summary.json`, always whole."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.matrix.plan import Key
from benchmarks.matrix.statistics import key_of

SCHEMA_VERSION = 1


class Results:
    """One run's folder. Opened again, it has what is there; a line that an interruption cut is left out."""

    def __init__(self, folder: Path, head: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = folder / "results.jsonl"
        self._rows: dict[Key, dict[str, Any]] = self._kept()
        self._head = {"schema_version": SCHEMA_VERSION, "run_id": folder.name, "started_at": now(), **head}
        earlier = _document(self.summary_path)
        if earlier:
            self._head["started_at"] = earlier["started_at"]
            self._head["commands"] = [*earlier["commands"], *head.get("commands", ())]
        self.write()

    @property
    def summary_path(self) -> Path:
        return self.folder / "summary.json"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The newest row of every cell."""
        return list(self._rows.values())

    def done(self, key: Key, digest: str) -> bool:
        """Return whether the cell succeeded before, on the same weights."""
        row = self._rows.get(key)
        return row is not None and row["status"] == "ok" and row["digest"] == digest

    def row(self, key: Key) -> dict[str, Any] | None:
        return self._rows.get(key)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Keep rows: on disk before this returns."""
        rows = list(rows)
        with self._lines.open("a+b") as file:
            if file.tell() and not self._lines.read_bytes().endswith(b"\n"):
                file.write(b"\n")  # an interruption cut the last line
            file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())
        self._rows |= {key_of(row): row for row in rows}
        self.write()

    def document(self) -> dict[str, Any]:
        """Return the content of summary.json."""
        return {**self._head, "updated_at": now(), "rows": self.rows}

    def settle(self) -> None:
        """Make summary.json say what the lines say: an interruption may have come between the two."""
        self._rows = self._kept()
        self.write()

    def _kept(self) -> dict[Key, dict[str, Any]]:
        return {key_of(row): row for row in _read(self._lines)}

    def write(self) -> None:
        """Rewrite summary.json: a reader sees the old one or the new one."""
        fresh = self.summary_path.with_suffix(".tmp")
        fresh.write_text(text_of(self.document()), encoding="utf-8")
        fresh.replace(self.summary_path)


def text_of(document: dict[str, Any]) -> str:
    """JSON with one line per row, so that a diff of two runs is readable."""
    rows = ",\n  ".join(json.dumps(row) for row in document["rows"])
    head = json.dumps({key: value for key, value in document.items() if key != "rows"}, indent=1)
    return f'{head[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n'


def load(path: Path) -> dict[str, Any]:
    """A summary.json.

    Raises:
        ValueError: it is none that this version reads.
    """
    document = _document(path)
    if document is None or document.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{path} is no summary.json of this version")
    return document


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _read(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _document(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
