"""All that a report shows beside the summary: durations, the pace over time, and the models."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.bulk.driver import VIDEOS
from app.bulk.recorded import Recorded
from app.bulk.summary import moment
from app.videos.manifest import NAME
from app.videos.verification.documents import NotOurs, Refused, parsed

_MOST_BINS = 60
_MOST_SIGNATURES = 20


@dataclass(frozen=True, slots=True)
class Bin:
    """The work that ended in one span of time: its start, and frames and videos per second."""

    start: datetime
    frames_per_s: float
    videos_per_s: float


@dataclass(frozen=True, slots=True)
class MadeBy:
    """The videos of one model signature: how many, and the entries of `models_used` of one of them."""

    signature: str
    config_hash: str
    videos: int
    models: tuple[Mapping[str, Any], ...]


@dataclass(slots=True)
class ReportData:
    """See the module; `durations` are seconds per analysed video."""

    durations: array[float] = field(default_factory=lambda: array("d"))
    bins: list[Bin] = field(default_factory=list)
    made_by: list[MadeBy] = field(default_factory=list)


def report_data(recorded: Recorded) -> ReportData:
    """Read the rows of a run once more.

    Raises:
        OSError: the output can't be read.
    """
    data = ReportData()
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for outcome in recorded.worked():
        data.durations.append(outcome.seconds)
        key = (outcome.model_signature or "unknown", outcome.config_hash or "unknown")
        counts[key] += 1
        examples.setdefault(key, outcome.name)
    data.bins = _bins(recorded)
    for key, count in counts.most_common(_MOST_SIGNATURES):
        data.made_by.append(MadeBy(*key, count, _models(recorded, examples[key], key[0])))
    return data


def _bins(recorded: Recorded) -> list[Bin]:
    """Return the pace in at most 60 spans of one length, over every row that tells of new artefacts."""
    ends, frames = array("d"), array("q")
    for outcome in recorded.all():
        at = moment(outcome.finished_at) if outcome.worked else None
        if at is not None:
            ends.append(at.timestamp())
            frames.append(int(outcome.frames))
    if not ends:
        return []
    first, last = min(ends), max(ends)
    count = max(1, min(_MOST_BINS, math.ceil(last - first)))
    width = max((last - first) / count, 1.0)
    done, videos = [0] * count, [0] * count
    for end, number in zip(ends, frames, strict=True):
        place = min(count - 1, int((end - first) / width))
        done[place] += number
        videos[place] += 1
    return [
        Bin(datetime.fromtimestamp(first + place * width, UTC), done[place] / width, videos[place] / width)
        for place in range(count)
    ]


def _models(recorded: Recorded, video: str, signature: str) -> tuple[Mapping[str, Any], ...]:
    """Return the models of a video as its manifest names them; none if it is of another run by now."""
    try:
        with recorded.store.open(f"{VIDEOS}/{video}/{NAME}") as file:
            document = parsed(file.read())
    except (FileNotFoundError, NotOurs, Refused):
        return ()
    return document.models if document.signature == signature else ()
