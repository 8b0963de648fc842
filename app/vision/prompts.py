"""Prompts to CLIP's token ids, and the row of the answer that stands for the prompt.

A port of OpenAI's byte-pair tokenizer (https://github.com/openai/CLIP, `simple_tokenizer.py`, MIT licence). Text is
repaired with ftfy, unescaped, its white space folded, lower-cased.
"""

from __future__ import annotations

import functools
import heapq
import html
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ftfy
import numpy as np
import regex
from numpy.typing import NDArray

CONTEXT_LENGTH = 77
START_OF_TEXT = 49406
END_OF_TEXT = 49407
# Beyond this nothing could reach the 75 tokens that a prompt has; repairing long text is what would cost time.
MAX_CHARACTERS = 4096

_WORDS = regex.compile(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""", regex.IGNORECASE)
_SPACE = regex.compile(r"\s+")
# Nothing to repair or to unescape: printable ASCII without an ampersand. Most prompts are, and ftfy costs most of it.
_PLAIN = regex.compile(r"[ -%'-~]*")
_END_OF_WORD = "</w>"
_LONGEST_REMEMBERED = 64  # characters of a word
_GONE = -1  # a part that was joined to the one before it


@dataclass(frozen=True, slots=True)
class Tokens:
    """`ids`: `[77]` int64, start of text, at most 75 tokens, end of text, zeros. `truncated`: some didn't fit."""

    ids: NDArray[np.int64]
    truncated: bool

    @property
    def end(self) -> int:
        """The row of the end of text: the first one, as the model was trained to answer there."""
        return int(np.argmax(self.ids == END_OF_TEXT))


class Tokenizer:
    """Exact against OpenAI's; literal `<|startoftext|>` and `<|endoftext|>` in a prompt are plain text, not control.

    Args:
        merges: the byte pairs in the order in which they merge, each of what those before it have made; see
            `app.media.vocabulary`.
        cache_size: so many words are remembered; the least recently used goes first.
    """

    def __init__(self, merges: Iterable[tuple[str, str]], cache_size: int = 16_384) -> None:
        characters = _byte_characters()
        self._bytes = {byte: number for number, byte in enumerate(characters)}
        single = [*characters.values(), *(c + _END_OF_WORD for c in characters.values())]
        ids = {token: number for number, token in enumerate(single)}
        # A token that merges make is numbered in their order, so its number is their rank, too. Numbers alone stay in
        # memory: with their text it would be four times as much.
        self._joined: dict[int, int] = {}
        for number, (left, right) in enumerate(merges, len(ids)):
            self._joined[_pair(ids[left], ids[right])] = ids[left + right] = number
        self._word = functools.lru_cache(cache_size)(self._encode_word)

    def __call__(self, prompt: str) -> Tokens:
        """Token ids of one prompt; longer ones are cut to 75 tokens and say so."""
        text = clean(prompt[:MAX_CHARACTERS])
        tokens = [token for word in _WORDS.findall(text) for token in self._tokens(word)]
        kept = tokens[: CONTEXT_LENGTH - 2]
        ids = np.zeros(CONTEXT_LENGTH, dtype=np.int64)
        ids[: len(kept) + 2] = [START_OF_TEXT, *kept, END_OF_TEXT]
        return Tokens(ids, len(tokens) > len(kept) or len(prompt) > MAX_CHARACTERS)

    def _tokens(self, word: str) -> tuple[int, ...]:
        """Only what is as short as words are is remembered: the cache is bounded in bytes, too."""
        return self._word(word) if len(word) <= _LONGEST_REMEMBERED else self._encode_word(word)

    def _encode_word(self, word: str) -> tuple[int, ...]:
        parts = [self._bytes[byte] for byte in word.encode("utf-8")]
        parts[-1] += len(self._bytes)  # the same byte at the end of a word
        return tuple(_merge(parts, self._joined))


def clean(text: str) -> str:
    """Text as the tokenizer sees it: repaired, unescaped twice, white space folded, lower-cased."""
    repaired = text if _PLAIN.fullmatch(text) else html.unescape(html.unescape(ftfy.fix_text(text)))
    folded: str = _SPACE.sub(" ", repaired.strip())
    return folded.strip().lower()


def _pair(left: int, right: int) -> int:
    return left << 16 | right


def _merge(parts: list[int], joined: Mapping[int, int]) -> list[int]:
    """Join neighbours, the lowest rank first and from the left, until no pair has one.

    A heap of pairs and links between neighbours: `n log n`, where looking for the best pair anew after every join is
    `n^2`. A pair that a join makes ranks after the pair that was joined, so the order is the reference's.
    """
    after, before = list(range(1, len(parts) + 1)), list(range(-1, len(parts) - 1))
    end = len(parts)
    heap = [
        (token, at)
        for at, pair in enumerate(itertools.pairwise(parts))
        if (token := joined.get(_pair(*pair)))
    ]
    heapq.heapify(heap)
    while heap:
        token, left = heapq.heappop(heap)
        right = after[left]
        if right >= end or parts[left] == _GONE or joined.get(_pair(parts[left], parts[right])) != token:
            continue  # one of the two has become part of another since
        parts[left], parts[right] = token, _GONE
        after[left] = after[right]
        if after[left] < end:
            before[after[left]] = left
        for at in (before[left], left):
            if at >= 0 and after[at] < end and (new := joined.get(_pair(parts[at], parts[after[at]]))):
                heapq.heappush(heap, (new, at))
    return [part for part in parts if part != _GONE]


@functools.cache
def _byte_characters() -> dict[int, str]:
    """Every byte as a printable character: itself where it is one, else one above 255 (GPT-2's scheme)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    return characters | {byte: chr(256 + number) for number, byte in enumerate(others)}
