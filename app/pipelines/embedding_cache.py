"""Cache of prompt embeddings, by content: the same weights never compute an embedding twice."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.provenance import UNKNOWN, ModelUsed, model_signature, models_used

# What one entry takes beside its vector: the key, and the dictionary's own.
_OVERHEAD_BYTES = 200


class EmbeddingCache:
    """Key: token ids and the signature of the model. Nothing is kept for weights whose digest is unknown.

    Args:
        max_bytes: of memory; the least recently used go first. 0: nothing is kept in memory.
        folder: also keep every vector in a file here, for the next process; None: don't.
    """

    def __init__(self, max_bytes: int, folder: Path | None = None) -> None:
        self._max_bytes = max_bytes
        self._folder = folder
        self._lock = threading.Lock()
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self.nbytes = 0

    @property
    def entries(self) -> int:
        """Number of vectors in memory."""
        return len(self._vectors)

    def get(self, ids: NDArray[np.int64], used: ModelUsed) -> NDArray[np.float32] | None:
        """The vector that this model gave for these ids; read-only."""
        key = _key(ids, used)
        if key is None:
            return None
        with self._lock:
            vector = self._vectors.get(key)
            if vector is not None:
                self._vectors.move_to_end(key)
                return vector
        vector = self._read(key)
        if vector is not None:
            self._keep(key, vector)
        return vector

    def put(self, ids: NDArray[np.int64], used: ModelUsed, vector: NDArray[np.float32]) -> None:
        key = _key(ids, used)
        if key is not None:
            self._keep(key, vector)
            self._write(key, vector)

    def _keep(self, key: str, vector: NDArray[np.float32]) -> None:
        vector.setflags(write=False)
        size = vector.nbytes + _OVERHEAD_BYTES
        with self._lock:
            if key in self._vectors or size > self._max_bytes:
                return
            self._vectors[key] = vector
            self.nbytes += size
            while self.nbytes > self._max_bytes:
                _, oldest = self._vectors.popitem(last=False)
                self.nbytes -= oldest.nbytes + _OVERHEAD_BYTES

    def _path(self, key: str) -> Path | None:
        return None if self._folder is None else self._folder / key[:2] / f"{key}.npy"

    def _read(self, key: str) -> NDArray[np.float32] | None:
        path = self._path(key)
        if path is None:
            return None
        try:
            vector: NDArray[Any] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return vector if vector.dtype == np.float32 and vector.ndim == 1 else None

    def _write(self, key: str, vector: NDArray[np.float32]) -> None:
        path = self._path(key)
        if path is None:
            return
        with suppress(OSError):  # a full disk costs the next process a call, not this one its answer
            path.parent.mkdir(parents=True, exist_ok=True)
            fd, fresh = tempfile.mkstemp(dir=path.parent, suffix=".new")
            with os.fdopen(fd, "wb") as file:
                np.save(file, vector, allow_pickle=False)
            Path(fresh).replace(path)


def _key(ids: NDArray[np.int64], used: ModelUsed) -> str | None:
    if used.weights_digest == UNKNOWN:
        return None
    return hashlib.sha256(_signature(used) + np.ascontiguousarray(ids, "<i8").tobytes()).hexdigest()


@functools.lru_cache(maxsize=16)
def _signature(used: ModelUsed) -> bytes:
    """The same for every prompt until a model is reloaded."""
    return model_signature(models_used([used])).encode()
