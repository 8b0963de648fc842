"""Prompts to CLIP's token ids, and the row of the answer that stands for the prompt.

A port of OpenAI's byte-pair tokenizer (https://github.com/openai/CLIP, `simple_tokenizer.py`, MIT licence). Text is
repaired with ftfy, unescaped, its white space folded, lower-cased.

No prompt costs more than a few times what plain text of its length costs: a prompt has 75 tokens, so a long text is
read only as far as they reach, and ftfy is given nothing that it would go over again and again.
"""

from __future__ import annotations

import functools
import heapq
import html
import itertools
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ftfy
import numpy as np
import regex
from ftfy.fixes import remove_control_chars, remove_terminal_escapes, unescape_html
from numpy.typing import NDArray

CONTEXT_LENGTH = 77
START_OF_TEXT = 49406
END_OF_TEXT = 49407
MOST_TOKENS = CONTEXT_LENGTH - 2
# Characters of a prompt, once its white space and entities are folded: beyond them it is cut.
MAX_CHARACTERS = 4096
_MOST_FOLDED = 1 << 20  # characters that are looked at for folding
# A text that has to be repaired is read in a first piece of so many characters; its tokens count if there are enough of
# them that the cut can't have changed those that are kept.
_FIRST_PIECE = 512
_MARGIN = 16  # tokens
_ROUNDS = 8  # of nested entities and escapes that ftfy resolves, each time reading all of the text
_MOST_LINES = 32  # ftfy repairs line by line; further lines are one

_WORDS = regex.compile(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""", regex.IGNORECASE)
_SPACE = regex.compile(r"\s+")
# Nothing to repair or to unescape: printable ASCII without an ampersand. Most prompts are, and ftfy costs most of it.
_PLAIN = regex.compile(r"[ -%'-~]*")
_AMPERSANDS = regex.compile(r"&(?:(?:amp|#0{0,20}38|#x0{0,20}26);){2,}", regex.IGNORECASE)
_MARKS = regex.compile(r"\p{M}{31,}")
_END_OF_WORD = "</w>"
_PREFIXES = (160, 640, 2560)  # of a word without end, in characters, until its first tokens are certain
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
        text, cut = _folded(prompt)
        tokens = self._first_tokens(text)
        kept = tokens[:MOST_TOKENS]
        ids = np.zeros(CONTEXT_LENGTH, dtype=np.int64)
        ids[: len(kept) + 2] = [START_OF_TEXT, *kept, END_OF_TEXT]
        return Tokens(ids, len(tokens) > len(kept) or cut)

    def _first_tokens(self, text: str) -> list[int]:
        """All tokens of a text, or at least one more than a prompt has."""
        if len(text) > _FIRST_PIECE and not _PLAIN.fullmatch(text):
            text = _in_order(text)
            tokens = self._encode(clean(_piece(text)))
            if len(tokens) >= MOST_TOKENS + _MARGIN:
                return tokens
        return self._encode(clean(text))

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = []
        for word in _WORDS.finditer(text):
            tokens.extend(self._tokens(word[0]))
            if len(tokens) >= MOST_TOKENS + _MARGIN:
                break
        return tokens

    def _tokens(self, word: str) -> tuple[int, ...]:
        """Only what is as short as words are is remembered: the cache is bounded in bytes, too."""
        if len(word) <= _LONGEST_REMEMBERED:
            return self._word(word)
        for length in _PREFIXES:  # a merge depends on its neighbours, not on what stands far behind
            tokens = self._encode_word(word[:length])
            if len(tokens) >= MOST_TOKENS + 2 * _MARGIN and len(word) > length:
                return tokens[:-_MARGIN]
        return self._encode_word(word)

    def _encode_word(self, word: str) -> tuple[int, ...]:
        parts = [self._bytes[byte] for byte in word.encode("utf-8")]
        parts[-1] += len(self._bytes)  # the same byte at the end of a word
        return tuple(_merge(parts, self._joined))


def clean(text: str) -> str:
    """Text as the tokenizer sees it: repaired, unescaped twice, white space folded, lower-cased."""
    repaired = text if _PLAIN.fullmatch(text) else html.unescape(html.unescape(_repaired(text)))
    folded: str = _SPACE.sub(" ", repaired)
    return folded.strip().lower()


def _folded(prompt: str) -> tuple[str, bool]:
    """A prompt of at most `MAX_CHARACTERS`, and whether it had to be cut: long white space and entities first."""
    if len(prompt) <= MAX_CHARACTERS:
        return prompt, False
    text = prompt[:_MOST_FOLDED]
    if "&" in text:
        text = html.unescape(html.unescape(_one_ampersand(text)))
    text = _SPACE.sub(" ", remove_control_chars(text)).strip()
    return text[:MAX_CHARACTERS], len(text) > MAX_CHARACTERS or len(prompt) > _MOST_FOLDED


def _in_order(text: str) -> str:
    """Long runs of combining marks in their canonical order (UAX 15), composed as ftfy does it, which takes n^2."""
    if _MARKS.search(text) is None:
        return text
    return unicodedata.normalize("NFC", _MARKS.sub(_sorted_marks, text))


def _sorted_marks(run: regex.Match[str]) -> str:
    parts = itertools.groupby(run[0], lambda mark: unicodedata.combining(mark) > 0)
    sorted_parts = (sorted(part, key=unicodedata.combining) if moves else part for moves, part in parts)
    return "".join(itertools.chain.from_iterable(sorted_parts))


def _piece(text: str) -> str:
    """The beginning of a text, up to white space if there is some near the end of it."""
    space = max(text.rfind(mark, _FIRST_PIECE // 2, _FIRST_PIECE) for mark in (" ", "\n"))
    return text[: space if space > 0 else _FIRST_PIECE]


def _repaired(text: str) -> str:
    """`ftfy.fix_text` for text that it would go over hundreds of times, or in thousands of lines, as for other text."""
    text = _one_ampersand(text)
    lines = text.split("\n", _MOST_LINES)
    text = "\n".join((*lines[:_MOST_LINES], *(line.replace("\n", " ") for line in lines[_MOST_LINES:])))
    settled = _settled(text)
    if settled is None:
        return ftfy.fix_text(text)
    return ftfy.fix_text(settled.replace("\x1b", ""), unescape_html=False)


def _one_ampersand(text: str) -> str:
    """Ampersands that were escaped again and again, as if escaped once; ftfy makes one of them if there is no `<`."""
    return text if "<" in text else _AMPERSANDS.sub("&amp;", text)


def _settled(text: str) -> str | None:
    """Text after `_ROUNDS` of entities and terminal escapes, where there are more of them; else None."""
    for _ in range(_ROUNDS):
        if "&" not in text and "\x1b" not in text:
            return None
        before = text
        text = remove_terminal_escapes(text if "<" in text else unescape_html(text))
        if text == before:
            return None
    return text


def _pair(left: int, right: int) -> int:
    return left << 16 | right


def _merge(parts: list[int], joined: Mapping[int, int]) -> list[int]:
    """Join neighbours, the lowest rank first and from the left, until no pair has one.

    A heap of pairs and links between neighbours: `n log n`, where looking for the best pair again after every join is
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
