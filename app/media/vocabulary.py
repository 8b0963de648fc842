"""The vocabulary of CLIP's tokenizer, as a file of this package."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from importlib import resources


def clip_merges() -> Iterator[tuple[str, str]]:
    """The 48,894 byte pairs in the order in which they merge.

    Source: OpenAI's `bpe_simple_vocab_16e6.txt.gz` (https://github.com/openai/CLIP, MIT licence), lines 2 to 48,895.
    """
    packed = resources.files("app.media").joinpath("data/clip_merges.txt.gz")
    with packed.open("rb") as file, gzip.open(file, "rt", encoding="utf-8", newline="\n") as rows:
        for row in rows:
            left, _, right = row.rstrip("\n").partition(" ")
            yield left, right
