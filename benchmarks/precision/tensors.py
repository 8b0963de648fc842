"""Answers of any model in FP16 beside those in FP32: relative error and cosine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from app.media.vocabulary import clip_merges
from app.vision.prompts import END_OF_TEXT, Tokenizer
from benchmarks.precision.models import Array, Feeds, Inputs, Pixels, graph, session
from export.half.models import cosine
from routing.catalogue import Branch

PROMPTS = ("a photo of a cat", "an astronaut in front of a flag", "two people on a motorcycle at night")


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference over some inputs: the worst of each.

    `rms`: of the difference, against that of the FP32 answer. `greatest`: the greatest difference against the greatest
    value. `cosine`: between the two answers, the least (of embeddings, row by row).
    """

    branch: str
    inputs: int
    rms: float
    greatest: float
    cosine: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    repository: Path, single: Branch, half: Branch, pictures: Mapping[str, Sequence[Pixels]]
) -> Difference:
    """Run both branches on each input."""
    feeds = feeds_of(repository, single, pictures)
    models = [graph(repository, branch.weights_model) for branch in (single, half)]
    first, second = ([answer(one, feed) for feed in feeds] for one in map(session, models))
    return difference(single.name, first, second)


def feeds_of(repository: Path, branch: Branch, pictures: Mapping[str, Sequence[Pixels]]) -> list[Feeds]:
    """Inputs of the model with weights: token ids of prompts for text, else prepared pictures."""
    last = branch.models[-1]
    if last.inputs[0].datatype == "INT64":
        tokenizer = Tokenizer(clip_merges())
        return [{last.inputs[0].name: tokenizer(prompt).ids[None]} for prompt in PROMPTS]
    inputs = Inputs(repository, branch)
    return [inputs.of(frames) for frames in pictures.values()]


def answer(model: ort.InferenceSession, feed: Feeds) -> Array:
    """The answer that the gateway reads: of a text, the row at its end."""
    found: Array = model.run(None, dict(feed))[0]
    (ids, *_) = feed.values()
    return found[0, int(np.argmax(ids == END_OF_TEXT))] if ids.dtype == np.int64 else found


def difference(name: str, first: Sequence[Array], second: Sequence[Array]) -> Difference:
    worst = [_between(one, other) for one, other in zip(first, second, strict=True)]
    rms, greatest, angle = zip(*worst, strict=True)
    return Difference(name, len(worst), max(rms), max(greatest), min(angle))


def _between(expected: Array, answer: Array) -> tuple[float, float, float]:
    gap = answer.astype(np.float64) - expected
    rms = float(np.sqrt(np.mean(gap**2) / np.mean(expected.astype(np.float64) ** 2)))
    return rms, float(np.abs(gap).max() / np.abs(expected).max()), cosine(expected, answer)
