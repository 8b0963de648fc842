"""Estimates of models: from the notes beside them, or from the graphs of models that have no note of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from app import extras
from app.engine.weights import WeightsBook
from routing.catalogue import Branch
from routing.memory import ModelMemory
from routing.versions import served_folder


def estimates(branches: Iterable[Branch], repository: Path) -> dict[str, ModelMemory]:
    """Return the estimates of the branches' models by name; those that can't be estimated are missing."""
    book = WeightsBook(repository, None)
    models = {spec.name for branch in branches for spec in branch.models if spec.kind != "ensemble"}
    found = {
        name: book.lookup(name).memory or _from_graph(served_folder(repository / name) / "model.onnx")
        for name in models
    }
    return {name: memory for name, memory in found.items() if memory is not None}


def _from_graph(path: Path) -> ModelMemory | None:
    """The estimate of a model that was built before there were any, or by others; it takes a second."""
    if extras.missing("repository") is not None or not path.is_file():
        return None
    from export.manifest import estimated  # noqa: PLC0415  # an extra: starter

    return estimated(path)
