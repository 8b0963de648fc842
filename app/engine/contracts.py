"""Tensors as a server or a file has them, beside those that the catalogue wants."""

from __future__ import annotations

from collections.abc import Sequence

from routing.catalogue import TensorSpec


def difference(where: str, actual: Sequence[TensorSpec], expected: Sequence[TensorSpec]) -> str | None:
    """Say in a sentence how tensors differ from those of the catalogue; None: they don't."""
    if {t.name: t for t in actual} == {t.name: t for t in expected}:
        return None
    return f"{where} has {_words(actual)}; the catalogue says {_words(expected)}"


def _words(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{t.name} {t.datatype} {list(t.shape)}" for t in tensors) or "no tensors"
