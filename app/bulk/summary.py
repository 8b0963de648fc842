"""A run in numbers: what is done and left, at which pace, and what failed."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from app.bulk.driver import RUN_FILE
from app.bulk.outcomes import STATES, Outcome
from app.bulk.recorded import Recorded
from app.videos.stores.base import ArtifactStore

_LATELY = timedelta(minutes=10)
_MOST = 10
_EXAMPLES = 3
_NOT_NAMED = "unknown"


class NoRun(OSError):
    """There is no bulk run's output; `strerror` says so."""

    def __init__(self, place: str) -> None:
        super().__init__(2, "there is no output of `gateway bulk`", place)


@dataclass(frozen=True, slots=True)
class Run:
    """The last command of an output, from `run/run.json`; None for what it doesn't say."""

    run_id: str | None
    profile: str | None
    begun_at: datetime | None
    entries: int | None
    shard: str | None


@dataclass(frozen=True, slots=True)
class Reason:
    """The videos that failed for one reason: the code, how many, and some of them with the words."""

    code: str
    count: int
    examples: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Summary:
    """Numbers of a run.

    `states` counts the newest rows; `left` videos of the last command have none yet (None: it doesn't say how many
    there are). `frames` and `seconds` are sums over the rows of analysed videos. The rates are those of the last
    minutes before `latest`, the end of the newest row; `eta_s` is the time that what is left takes at this rate.
    """

    run: Run
    states: Counter[str] = field(default_factory=Counter)
    left: int | None = None
    frames: int = 0
    seconds: float = 0.0
    latest: datetime | None = None
    frames_per_s: float | None = None
    videos_per_s: float | None = None
    eta_s: float | None = None
    slowest: list[Outcome] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    damaged: int = 0


def read_run(store: ArtifactStore) -> Run | None:
    """Return the last command of an output; None if there is none, or its document is damaged.

    Raises:
        OSError: it can't be read.
    """
    try:
        with store.open(RUN_FILE) as file:
            document = json.loads(file.read())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    entries = document.get("entries")
    profile = document.get("profile")
    return Run(
        _text(document, "run_id"),
        _text(profile, "name") if isinstance(profile, dict) else _text(document, "profile"),
        moment(_text(document, "begun_at")),
        entries if isinstance(entries, int) else None,
        _text(document, "shard"),
    )


def summarised(store: ArtifactStore) -> tuple[Summary, Recorded]:
    """Return the numbers of a run, and its rows.

    Raises:
        NoRun: the output is of no bulk run.
        OSError: it can't be read.
    """
    run = read_run(store)
    recorded = Recorded.of(store)
    if run is None and not recorded.segments:
        raise NoRun(store.url)
    summary = Summary(run or Run(None, None, None, None, None), damaged=recorded.damaged)
    _count(summary, recorded.newest())
    _pace(summary, recorded)
    return summary, recorded


def _count(summary: Summary, newest: Iterable[Outcome]) -> None:
    """Count states, what is left, and the reasons of failures, over the newest row of each video."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[tuple[str, str]]] = {}
    since, ended = summary.run.begun_at, 0
    for outcome in newest:
        summary.states[outcome.state] += 1
        at = moment(outcome.finished_at)
        ended += since is None or (at is not None and at >= since)
        if outcome.state in ("failed", "poison", "partial"):
            code = outcome.code or _NOT_NAMED
            counts[code] += 1
            some = examples.setdefault(code, [])
            if len(some) < _EXAMPLES:
                some.append((outcome.name, outcome.reason or ""))
    summary.states = Counter({state: summary.states[state] for state in STATES})
    if summary.run.entries is not None:
        summary.left = max(0, summary.run.entries - ended)
    summary.reasons = [Reason(code, count, tuple(examples[code])) for code, count in counts.most_common()]


def _pace(summary: Summary, recorded: Recorded) -> None:
    """Add sums, rates and the slowest videos, over the newest row of each video that was analysed."""
    slowest: list[tuple[float, int, Outcome]] = []
    ends: list[tuple[datetime, int]] = []
    for number, outcome in enumerate(recorded.worked()):
        summary.frames += outcome.frames
        summary.seconds += outcome.seconds
        at = moment(outcome.finished_at)
        if at is not None:
            ends.append((at, outcome.frames))
        (heapq.heappush if len(slowest) < _MOST else heapq.heappushpop)(
            slowest, (outcome.seconds, number, outcome)
        )
    summary.slowest = [outcome for _, _, outcome in sorted(slowest, reverse=True)]
    if not ends:
        return
    summary.latest = max(at for at, _ in ends)
    first = max(summary.latest - _LATELY, summary.run.begun_at or min(at for at, _ in ends))
    lately = [frames for at, frames in ends if at >= first]
    elapsed = (summary.latest - first).total_seconds()
    if elapsed > 0 and lately:
        summary.frames_per_s = sum(lately) / elapsed
        summary.videos_per_s = len(lately) / elapsed
        if summary.left:
            summary.eta_s = summary.left / summary.videos_per_s


def moment(text: str | None) -> datetime | None:
    """Return a time of a row, in UTC; None if there is none, or it is damaged."""
    try:
        found = None if text is None else datetime.fromisoformat(text)
        if found is None:
            return None
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def as_document(summary: Summary) -> dict[str, Any]:
    """Return the summary for JSON."""
    run = summary.run
    return {
        "run_id": run.run_id, "profile": run.profile, "shard": run.shard, "begun_at": _iso(run.begun_at),
        "entries": run.entries, "states": dict(summary.states), "left": summary.left, "frames": summary.frames,
        "seconds": round(summary.seconds, 3), "latest": _iso(summary.latest),
        "frames_per_s": _rounded(summary.frames_per_s), "videos_per_s": _rounded(summary.videos_per_s),
        "eta_s": _rounded(summary.eta_s), "damaged_rows": summary.damaged,
        "slowest": [{"name": one.name, "seconds": one.seconds, "frames": one.frames} for one in summary.slowest],
        "failing": [
            {
                "code": one.code, "count": one.count,
                "examples": [{"name": name, "reason": words} for name, words in one.examples],
            }
            for one in summary.reasons
        ],
    }  # fmt: skip


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) else None


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
