"""CLIP's tokenizer, made when the first test of a process needs it: that takes half a second."""

from __future__ import annotations

import functools

from app.media.vocabulary import clip_merges
from app.vision.prompts import Tokenizer


@functools.cache
def tokenizer() -> Tokenizer:
    """Return the tokenizer that all tests of a process share."""
    return Tokenizer(clip_merges())
