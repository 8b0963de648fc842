"""Token ids, exactly OpenAI's."""

from __future__ import annotations

import gzip
import html
import json
import time
from pathlib import Path

import ftfy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.triton_server import ROOT

from app.media.vocabulary import clip_merges
from app.vision.prompts import END_OF_TEXT, START_OF_TEXT, Tokenizer, clean

GOLDEN = ROOT / "tests" / "helpers" / "golden" / "clip_tokens.json.gz"
TOKENIZER = Tokenizer(clip_merges())
CONTROL = ("<|endoftext|>", "<|startoftext|>")


def golden() -> list[tuple[str, list[int]]]:
    rows = json.loads(gzip.decompress(GOLDEN.read_bytes()))
    return [(text, ids) for text, ids in rows]


def test_ids_are_those_of_openai_s_tokenizer() -> None:
    """All golden strings, but for the few that spell control tokens: there ours must differ."""
    rows = golden()
    assert len(rows) == 2680
    wrong = [text for text, ids in rows if TOKENIZER(text).ids.tolist() != ids]
    spelled = [text for text, _ in rows if any(word in text.lower() for word in CONTROL)]
    assert sorted(wrong) == sorted(spelled)


@pytest.mark.parametrize("word", CONTROL)
def test_control_tokens_in_a_prompt_are_plain_text(word: str) -> None:
    """A prompt can't end itself: the first end of text is ours."""
    tokens = TOKENIZER(f"a {word} dog")
    body = tokens.ids[1 : tokens.end].tolist()
    assert START_OF_TEXT not in body
    assert END_OF_TEXT not in body
    assert body[-1] == TOKENIZER("dog").ids[1]


@given(st.text(max_size=400))
def test_every_text_is_framed(text: str) -> None:
    """Start of text, at most 75 tokens, end of text, zeros; int64."""
    tokens = TOKENIZER(text)
    assert tokens.ids.dtype == np.int64
    assert tokens.ids.shape == (77,)
    assert tokens.ids[0] == START_OF_TEXT
    assert tokens.ids[tokens.end] == END_OF_TEXT
    assert not tokens.ids[tokens.end + 1 :].any()
    assert not np.isin(tokens.ids[1 : tokens.end], (START_OF_TEXT, END_OF_TEXT)).any()


def test_truncation_is_exact() -> None:
    """75 tokens fit, 76 don't."""
    assert not TOKENIZER("cat " * 75).truncated
    cut = TOKENIZER("cat " * 76)
    assert cut.truncated
    np.testing.assert_array_equal(cut.ids, TOKENIZER("cat " * 75).ids)


def test_length_is_capped_before_text_is_cleaned() -> None:
    """Megabytes of broken text cost what 4,096 characters cost."""
    started = time.perf_counter()
    assert TOKENIZER("Ã©" * 1_000_000).truncated
    assert time.perf_counter() - started < 5


def test_the_vocabulary_is_complete() -> None:
    """49,406 tokens below the two control tokens, as the model was trained with."""
    assert sorted(TOKENIZER._joined.values()) == list(range(2 * 256, START_OF_TEXT))


def test_the_golden_file_is_the_one_that_was_measured() -> None:
    """Compressed, small enough to be read by every clone."""
    assert Path(GOLDEN).stat().st_size < 200_000


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="&"), max_size=80))
def test_plain_text_needs_no_repair(text: str) -> None:
    """What goes around ftfy and unescaping would have come out of them as it was."""
    repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
    assert repaired == text
    assert clean(text) == " ".join(text.split()).lower()
