"""Embeddings of prompts are remembered by the weights that made them, and by no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.clip_tokens import tokenizer
from support.models.weighed import WeighedText

from app.deadline import Deadline
from app.engine.fake import Arrays, FakeEngine
from app.errors import InferenceFailed, PromptTooLong
from app.metrics import Metrics
from app.pipelines.base import Router
from app.pipelines.clip import TextPipeline
from app.pipelines.embedding_cache import EmbeddingCache
from routing import catalogue as catalogues

CATALOGUE = catalogues.load()
TEN = Deadline.after(86_400)  # made when the tests are collected


@pytest.fixture
def engine() -> WeighedText:
    """Weights 1."""
    return WeighedText(CATALOGUE)


def _pipeline(engine: WeighedText, cache: EmbeddingCache | None = None) -> TextPipeline:
    return TextPipeline(
        Router(CATALOGUE, engine), Metrics(), tokenizer(), EmbeddingCache(1 << 20) if cache is None else cache
    )


def _embed(pipeline: TextPipeline, prompt: str) -> tuple[float, bool]:
    """The number that the model answered, and whether it came from the cache."""
    found = pipeline(pipeline.tokens(prompt, strict=False), TEN)
    assert (found.vector == found.vector[0]).all()
    return float(found.vector[0]), found.cached


def test_other_weights_are_asked_and_the_first_ones_remembered(engine: WeighedText) -> None:
    """A change of weights makes calls again; back with the first ones nothing is asked."""
    pipeline = _pipeline(engine)
    assert [_embed(pipeline, "a cat") for _ in range(2)] == [(1, False), (1, True)]
    engine.swap(2)
    assert [_embed(pipeline, "a cat") for _ in range(2)] == [(2, False), (2, True)]
    engine.swap(1)
    assert _embed(pipeline, "a cat") == (1, True)
    assert engine.calls == 2


def test_the_folder_is_as_careful(engine: WeighedText, tmp_path: Path) -> None:
    """Vectors that another process left on disk serve the weights they were made with, and no others."""
    assert _embed(_pipeline(engine, EmbeddingCache(1 << 20, tmp_path)), "a cat") == (1, False)
    assert _embed(_pipeline(engine, EmbeddingCache(1 << 20, tmp_path)), "a cat") == (1, True)
    engine.swap(2)
    assert _embed(_pipeline(engine, EmbeddingCache(1 << 20, tmp_path)), "a cat") == (2, False)


def test_weights_that_change_during_a_call_leave_nothing_behind(engine: WeighedText) -> None:
    """Whichever weights answered, the vector is kept under neither."""
    pipeline = _pipeline(engine)
    engine.swap_after = 1
    assert _embed(pipeline, "a cat") == (1, False)
    engine.swap_after = None
    assert _embed(pipeline, "a cat") == (2, False)
    engine.swap(1)
    assert _embed(pipeline, "a cat") == (1, False)


def test_unknown_weights_are_never_remembered(engine: WeighedText) -> None:
    """Without a digest nobody can say whether they are still the same."""
    engine.swap(1, "unknown")
    pipeline = _pipeline(engine)
    assert [_embed(pipeline, "a cat") for _ in range(2)] == [(1, False), (1, False)]


def test_numbers_that_are_none_are_neither_answered_nor_kept(engine: WeighedText) -> None:
    """A model that answers NaN is a failure of the backend, again and again."""
    pipeline = _pipeline(engine)
    engine.swap(float("nan"))
    for _ in range(2):
        with pytest.raises(InferenceFailed):
            _embed(pipeline, "a cat")
    assert engine.calls == 2


def test_the_memory_is_bounded(engine: WeighedText) -> None:
    """The cache holds so many bytes and no more: the least recently used prompt is computed again."""
    one = 512 * 4 + 200
    cache = EmbeddingCache(2 * one)
    pipeline = _pipeline(engine, cache)
    for prompt in ("one", "two", "one", "three"):
        _embed(pipeline, prompt)
    assert cache.nbytes <= 2 * one
    assert _embed(pipeline, "one")[1]
    assert not _embed(pipeline, "two")[1]


def test_hits_and_misses_are_counted(engine: WeighedText) -> None:
    """Each prompt is one or the other."""
    pipeline = _pipeline(engine)
    for prompt in ("one", "two", "one", "one"):
        _embed(pipeline, prompt)
    text = pipeline.metrics.exposition().decode()
    assert 'gateway_text_cache_lookups_total{result="hit"} 2.0' in text
    assert 'gateway_text_cache_lookups_total{result="miss"} 2.0' in text


def test_the_row_is_that_of_the_first_end() -> None:
    """Not of a padding, and not of the last row."""

    def rows(inputs: Arrays, outputs: Arrays) -> None:
        outputs["OUTPUT__0"][0] = np.arange(77, dtype=np.float32)[:, None]

    pipeline = TextPipeline(
        Router(CATALOGUE, FakeEngine(CATALOGUE, {"clip_text": rows})),
        Metrics(),
        tokenizer(),
        EmbeddingCache(0),
    )
    assert _embed(pipeline, "") == (1, False)
    assert _embed(pipeline, "a cat") == (3, False)
    assert _embed(pipeline, "cat " * 100) == (76, False)


def test_strict_refuses_before_anything_is_asked(engine: WeighedText) -> None:
    """75 tokens pass, 76 don't."""
    pipeline = _pipeline(engine)
    assert not pipeline.tokens("cat " * 75, strict=True).truncated
    with pytest.raises(PromptTooLong, match="'cat cat"):
        pipeline.tokens("cat " * 76, strict=True)
    assert engine.calls == 0
