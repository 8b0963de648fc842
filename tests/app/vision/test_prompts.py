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
import regex
from hypothesis import given
from hypothesis import strategies as st
from support.clip_tokens import tokenizer
from support.paths import ROOT

from app.vision.prompts import END_OF_TEXT, START_OF_TEXT, clean

GOLDEN = ROOT / "tests" / "helpers" / "golden" / "clip_tokens.json.gz"
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
CONTROL = ("<|endoftext|>", "<|startoftext|>")


def golden() -> list[tuple[str, list[int]]]:
    rows = json.loads(gzip.decompress(GOLDEN.read_bytes()))
    return [(text, ids) for text, ids in rows]


def test_ids_are_those_of_openai_s_tokenizer() -> None:
    """All golden strings, but for the few that spell control tokens: there ours must differ."""
    rows = golden()
    assert len(rows) == 2680
    wrong = [text for text, ids in rows if tokenizer()(text).ids.tolist() != ids]
    spelled = [text for text, _ in rows if any(word in text.lower() for word in CONTROL)]
    assert sorted(wrong) == sorted(spelled)


@pytest.mark.parametrize("word", CONTROL)
def test_control_tokens_in_a_prompt_are_plain_text(word: str) -> None:
    """A prompt can't end itself: the first end of text is ours."""
    tokens = tokenizer()(f"a {word} dog")
    body = tokens.ids[1 : tokens.end].tolist()
    assert START_OF_TEXT not in body
    assert END_OF_TEXT not in body
    assert body[-1] == tokenizer()("dog").ids[1]


@given(st.text(max_size=400))
def test_every_text_is_framed(text: str) -> None:
    """Start of text, at most 75 tokens, end of text, zeros; int64."""
    tokens = tokenizer()(text)
    assert tokens.ids.dtype == np.int64
    assert tokens.ids.shape == (77,)
    assert tokens.ids[0] == START_OF_TEXT
    assert tokens.ids[tokens.end] == END_OF_TEXT
    assert not tokens.ids[tokens.end + 1 :].any()
    assert not np.isin(tokens.ids[1 : tokens.end], (START_OF_TEXT, END_OF_TEXT)).any()


def test_truncation_is_exact() -> None:
    """75 tokens fit, 76 don't."""
    assert not tokenizer()("cat " * 75).truncated
    cut = tokenizer()("cat " * 76)
    assert cut.truncated
    np.testing.assert_array_equal(cut.ids, tokenizer()("cat " * 75).ids)


def test_length_is_capped_before_text_is_cleaned() -> None:
    """Megabytes of broken text are cut, and say so."""
    assert tokenizer()("Ã©" * 1_000_000).truncated


FOLDED = {
    "spaces before": " " * 5000 + "a cat",
    "spaces behind": "a cat" + " " * 5000,
    "newlines before": "\n" * 4096 + "a cat",
    "white space of all kinds": " \t\r\n\x0b\x0c\x85\xa0\u2003\u3000" * 900 + "a cat",
    "spaces between": "a" + " " * 100_000 + "cat",
    "control characters": "\x01" * 5000 + "a cat",
    "named entities": "&nbsp;" * 700 + "a cat",
    "numbered entities": "&#32;&#xA0;" * 2000 + "a cat",
    "entities escaped twice": "&amp;nbsp;" * 900 + "a cat",
    "entities of a word": "&nbsp;" * 700 + "&#97; &#x63;at",
    "an ampersand escaped 2,000 times": " " + "&" + "amp;" * 2000 + "nbsp;a cat",
}


@pytest.mark.parametrize("name", FOLDED)
def test_white_space_and_entities_are_folded_before_a_prompt_is_cut(name: str) -> None:
    """All of these are "a cat", whole."""
    tokens = tokenizer()(FOLDED[name])
    np.testing.assert_array_equal(tokens.ids, tokenizer()("a cat").ids)
    assert not tokens.truncated


def test_what_is_too_long_once_folded_is_cut() -> None:
    """4,096 characters count, folded; a word beyond them is not seen, and the prompt says so."""
    assert not tokenizer()("&" + "amp;" * 900 + "amp;").truncated
    assert tokenizer()("\u0301" * 5000).truncated
    assert tokenizer()("a " * 3000).truncated


def reference(text: str) -> list[int]:
    """OpenAI's steps over the whole text, its first 75 tokens."""
    whole = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    lowered = regex.sub(r"\s+", " ", whole).strip().lower()
    words = regex.findall(PATTERN, lowered, regex.IGNORECASE)
    return [token for word in words for token in tokenizer()._encode_word(word)][:75]


COSTLY = {
    "ampersands": "&" + "amp;" * 1000 + "lt;b&gt; cat",
    "ampersands by number": "&" + "#38;" * 600 + "#x26;" * 100 + "eacute;t",
    "ampersands beside <": "<i>&" + "amp;" * 1000 + "lt;",
    "digits of entities": "a &#3&#56;;amp;amp;lt; b",
    "combining marks": "e" + "\u0301\u0316" * 2000,
    "marks in the wrong order": "e" + "\u0301" * 2000 + "\u0316" * 2000,
    "Tibetan vowels": "\u0f71\u0f72\u0f74" * 1300,
    "lines": "é\n" * 2000,
    "lines of mojibake": "Ã©tÃ©\n" * 600,
    "mojibake": "Ã©" * 2000,
    "C1 controls": "\x80\x81" * 2000,
    "ideographs": "漢字" * 2000,
    "emoji": "😀🐱" * 2000,
    "wide letters": "\uff21\uff42" * 2000,
    "one word": "xy" * 2000,
    "punctuation": "!?" * 2000,
    "words": "ein schöner Hund läuft " * 150,
}


@pytest.mark.parametrize("name", COSTLY)
def test_bounded_work_changes_no_token(name: str) -> None:
    """The first 75 tokens are those of the whole text, as the reference makes them."""
    tokens = tokenizer()(COSTLY[name])
    found = tokens.ids[1 : tokens.end].tolist()
    assert found == reference(COSTLY[name])


def test_no_prompt_costs_many_times_a_plain_one() -> None:
    """At most 30 ms of CPU each, in the best of five runs; unbounded, some take over 100 ms."""
    nested = {"nested digits": "&#5" * 700 + "4;" * 700, "nested escapes": "\x1b[" * 800 + "1m" * 800}
    assert {name: ms for name, text in {**COSTLY, **nested}.items() if (ms := _cost_ms(text)) > 30} == {}


def _cost_ms(text: str) -> float:
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        tokenizer()(text)
        best = min(best, (time.process_time() - began) * 1000)
    return best


def test_the_vocabulary_is_complete() -> None:
    """49,406 tokens below the two control tokens, as the model was trained with."""
    assert sorted(tokenizer()._joined.values()) == list(range(2 * 256, START_OF_TEXT))


def test_the_golden_file_is_the_one_that_was_measured() -> None:
    """Compressed, small enough to be read by every clone."""
    assert Path(GOLDEN).stat().st_size < 200_000


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="&"), max_size=80))
def test_plain_text_needs_no_repair(text: str) -> None:
    """Texts that bypass ftfy and unescaping would have come out of them unchanged."""
    repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
    assert repaired == text
    assert clean(text) == " ".join(text.split()).lower()
