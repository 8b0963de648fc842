"""The vocabulary of CLIP's tokenizer, as a file of this package."""

from __future__ import annotations

import gzip
from importlib import resources


def clip_merges() -> list[tuple[str, str]]:
    """The 48,894 byte pairs in the order in which they merge.

    Source: OpenAI's `bpe_simple_vocab_16e6.txt.gz` (https://github.com/openai/CLIP, MIT licence), lines 2 to 48,895.
    """
    data = resources.files("app.media").joinpath("data/clip_merges.txt.gz").read_bytes()
    rows = gzip.decompress(data).decode("utf-8").splitlines()
    return [(left, right) for left, _, right in (row.partition(" ") for row in rows)]
