"""Requests to `gateway models add`, and the plans that the families make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.manifest import Provenance
from export.plan import Places
from routing.catalogue import Branch


@dataclass(frozen=True, slots=True)
class Request:
    """Weights to serve under a name: the sizes in pixels (none: the family's usual one), a file of class names, where
    everything goes, and if a variant of this name may be replaced.
    """

    weights: Path
    family: str
    name: str
    places: Places
    catalogue: Path
    sizes: tuple[int, ...] = ()
    labels: Path | None = None
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Variant:
    """One `[[variant]]` to be: its family, its keys beside `labels`, and its branches as tables."""

    family: str
    branches: Sequence[dict[str, Any]]
    keys: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Models to be made: variants for the catalogue, and the graph of each branch, checked against its weights."""

    variants: Sequence[Variant]
    make: Callable[[Branch], bytes]
    provenance: Provenance
    shared: bool = False
