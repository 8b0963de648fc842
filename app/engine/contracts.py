"""Tensors as a server or a file has them, beside those that the catalogue wants."""

from __future__ import annotations

from collections.abc import Sequence

from app.engine.base import Weights
from routing.catalogue import Branch, ModelSpec, TensorSpec


def difference(
    where: str, actual: Sequence[TensorSpec], expected: Sequence[TensorSpec], model: ModelSpec | None = None
) -> str | None:
    """Say in a sentence how tensors differ from those of the catalogue; None: they don't.

    Args:
        where: in words, who has them.
        actual: tensors as they are there; -1 is an axis of any size.
        expected: inputs or outputs as the catalogue has them.
        model: of the catalogue; what others made may take other sizes too, and have more outputs.
    """
    mapped = model is not None and model.mapped
    there = {t.name: t for t in actual}
    if mapped and model is not None and expected is model.outputs:
        there = {t.name: there[t.name] for t in expected if t.name in there}
    if there.keys() == {t.name for t in expected} and all(
        _fits(there[t.name], t, any_size=mapped) for t in expected
    ):
        return None
    said = f"{where} has {_words(actual)}; the catalogue says {_words(expected)}"
    counted = model.classes if model is not None and expected is model.outputs else ""
    return f"{said} ({counted})" if counted else said


def label_fault(branch: Branch, weights: Weights) -> str | None:
    """Say that the class names beside the weights are not as many as the model has classes; None: they are."""
    if not branch.labels or not weights.labels or len(weights.labels) == len(branch.labels):
        return None
    output = branch.outputs[0]
    return (
        f"weights.json of {branch.weights_model} names {len(weights.labels)} classes, and {output.name} "
        f"{list(output.shape)} has {len(branch.labels)}"
    )


def _fits(there: TensorSpec, wanted: TensorSpec, *, any_size: bool) -> bool:
    if not any_size:
        return there == wanted
    same = there.datatype == wanted.datatype and len(there.shape) == len(wanted.shape)
    return same and all(a in (b, -1) for a, b in zip(there.shape, wanted.shape, strict=True))


def _words(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{t.name} {t.datatype} {list(t.shape)}" for t in tensors) or "no tensors"
