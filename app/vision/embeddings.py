"""Embeddings and logits: lengths, similarities, probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def l2_normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows `[..., D]` at length 1; a row of zeros stays one."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    rows: NDArray[np.float32] = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return rows


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities over the last axis, computed from the difference to the greatest logit."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def top_k(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Indices of the `k` greatest of `[N]`, descending; equal ones in their order."""
    return np.argsort(-scores, kind="stable")[:k]
