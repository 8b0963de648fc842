"""Results of videos: one row each, published as JSON lines while a run goes on."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

from app.bulk.entries import Entry
from app.videos.names import encodable
from app.videos.stores.base import ArtifactStore

State = Literal["done", "partial", "skipped", "failed", "poison"]
STATES: tuple[State, ...] = ("done", "partial", "skipped", "failed", "poison")
FOLDER = "run/outcomes"
_Line = str | bytes


def now() -> str:
    """The time in UTC, as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one video in one run.

    `done`: all frames; `partial`: the video could be decoded only in part; `skipped`: an earlier run did the same;
    `failed`: `code` and `reason` say why; `poison`: it killed its worker twice and was set aside. `seconds` are those
    of the last attempt; `bytes` and `sha256` are the video's; times are ISO 8601 in UTC.
    """

    name: str
    uri: str
    state: State
    code: str | None = None
    reason: str | None = None
    attempts: int = 0
    frames: int = 0
    seconds: float = 0.0
    bytes: int | None = None
    sha256: str | None = None
    config_hash: str | None = None
    model_signature: str | None = None
    run_id: str | None = None
    worker: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    id: str | None = None

    @property
    def worked(self) -> bool:
        """True if the video was analysed in this run."""
        return self.state in ("done", "partial")

    def to_json(self) -> str:
        """Return the row as one line of ASCII."""
        return json.dumps(_escaped(asdict(self)), separators=(",", ":"))

    @classmethod
    def from_json(cls, line: _Line) -> Outcome:
        """Read a row. Fields of a later version are ignored.

        Raises:
            ValueError: it is no row.
        """
        document: Any = json.loads(line)
        if not isinstance(document, dict) or document.get("state") not in STATES:
            raise ValueError("no row of a video")
        known = {field.name for field in fields(cls)}
        try:
            return cls(**_escaped({key: value for key, value in document.items() if key in known}))
        except TypeError as error:
            raise ValueError("a row without name or URI") from error


def _escaped(values: dict[str, Any]) -> dict[str, Any]:
    """Escape the bytes of file names that are no UTF-8, which no table takes; older runs wrote them as they are.

    Raises:
        ValueError: a text has another lone surrogate.
    """
    return {key: encodable(value) if isinstance(value, str) else value for key, value in values.items()}


def unread(entry: Entry, state: State, code: str, reason: str, attempts: int = 0) -> Outcome:
    """Return the row of a video that no worker has an answer for."""
    at = now()
    return Outcome(
        entry.name, entry.uri, state, code, reason, attempts, started_at=at, finished_at=at, id=entry.id
    )


class OutcomeLog:
    """The rows of one run, in segments: `run/outcomes/<run>-<number>.jsonl`. Safe to use from several threads."""

    def __init__(self, store: ArtifactStore, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._lines: list[str] = []
        self._segments = 0
        self._adding = threading.Lock()
        self._publishing = threading.Lock()

    def add(self, outcome: Outcome) -> None:
        """Keep a row until the next segment."""
        with self._adding:
            self._lines.append(outcome.to_json())

    def publish(self) -> None:
        """Write a segment with the rows since the last one, if there are any.

        Raises:
            OSError: it can't be written; the rows are kept for the next time.
        """
        with self._publishing:
            with self._adding:
                lines = list(self._lines)
            if not lines:
                return
            name = f"{FOLDER}/{self._run_id}-{self._segments:06d}.jsonl"
            self._store.put(name, "".join(f"{line}\n" for line in lines).encode())
            self._segments += 1
            with self._adding:
                del self._lines[: len(lines)]
