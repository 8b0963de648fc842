"""State of one run of an analysis, and its progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.media.video.reader import VideoFacts
from app.pipelines.frames import Sample
from app.pipelines.tally import Tally
from app.videos.checkpoint import Checkpoint, Chunk
from app.videos.components.base import Component
from app.videos.profile import SamplingRule


@dataclass(frozen=True, slots=True)
class Progress:
    """`frames` samples are done, of about `expected` (None: unknown); `fraction` of the video's time, 0 to 1."""

    frames: int
    expected: int | None
    fraction: float | None
    resumed: int = 0


Report = Callable[[Progress], None]


@dataclass(slots=True)
class Run:
    """`components` are those that run, and `kept` are the rows of the other artefacts."""

    facts: VideoFacts
    components: Sequence[Component]
    checkpoint: Checkpoint
    tallies: dict[str, Tally]
    kept: Mapping[str, Mapping[str, Any]]
    report: Report

    def keep(self, chunk: Chunk) -> None:
        if chunk.frame_index:
            states = {component.name: component.state() for component in self.components}
            self.checkpoint.write(chunk, states, self.tallies)

    def fresh(self) -> Chunk:
        return Chunk.after(self.checkpoint.frames, [component.name for component in self.components])

    def add(self, chunk: Chunk, sample: Sample, results: Sequence[Any]) -> None:
        """One frame's rows."""
        chunk.frame_index.append(sample.index)
        chunk.time_s.append(sample.time_s)
        for component, result in zip(self.components, results, strict=False):
            chunk.add(component.name, component.row(sample, result))
            served = component.served(result)
            if served is not None:
                self.tallies[component.name].add(served)


def progress_at(sample: Sample, facts: VideoFacts, rule: SamplingRule, resumed: int) -> Progress:
    """Progress after a sample, by the video's facts, which change where the header was wrong."""
    return Progress(sample.ordinal + 1, _expected(facts, rule), _fraction(facts, sample.time_s), resumed)


def _expected(facts: VideoFacts, rule: SamplingRule) -> int | None:
    """About how many samples there will be; None where the container doesn't say."""
    if facts.duration_s is None or rule.keyframes:
        return None
    seconds = min(facts.duration_s, rule.end_s or math.inf) - rule.start_s
    rate = facts.fps or 0.0
    if rule.fps is not None:
        rate = min(rule.fps, rate or rule.fps)
    if rule.every is not None:
        rate /= rule.every
    return max(1, round(seconds * rate)) if rate > 0 and seconds > 0 else None


def _fraction(facts: VideoFacts, time_s: float) -> float | None:
    return None if not facts.duration_s else min(1.0, max(0.0, time_s / facts.duration_s))
