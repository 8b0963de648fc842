"""Provenance of an answer: `models_used[]`, `resolved_model_mapping` and `model_signature`.

Nothing dynamic (a batch size, a time, a host) goes in: the same models give the same signature a year later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

UNKNOWN = "unknown"
Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResizedBy:
    """The resizer that brought frames to a branch's size: a library, its version and its filter.

    `scaled_decode`: the library that may decode a JPEG at a fraction of its size before that; None: none may.
    """

    library: str
    version: str
    filter: str
    scaled_decode: str | None = None

    def to_dict(self) -> dict[str, str]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class ModelUsed:
    """One entry of `models_used[]`.

    `weights_digest` is `sha256:<hex>` of the file(s) that hold the weights, or `unknown`, never invented.
    `preprocess_digest` is that of the preprocess graph of an ensemble; a model without one has no such key.
    `prepare`: what resized its input; a model that takes no frames has no such key.
    """

    model_name: str
    model_version: str
    weights_digest: str
    weights: str
    runtime: str
    engine: str
    precision: str
    device: str
    preprocess_digest: str | None = None
    prepare: ResizedBy | None = None

    def to_dict(self) -> Entry:
        entry = {name: getattr(self, name) for name in self.__slots__}
        if self.prepare is not None:
            entry["prepare"] = self.prepare.to_dict()
        return {name: value for name, value in entry.items() if value is not None}


def models_used(entries: Iterable[ModelUsed]) -> list[Entry]:
    """The canonical list: each entry once, sorted by its canonical JSON."""
    return merged([[entry.to_dict()] for entry in entries])


def merged(lists: Iterable[list[Entry]]) -> list[Entry]:
    """One canonical list of several."""
    unique = {_canonical(entry): entry for used in lists for entry in used}
    return [unique[key] for key in sorted(unique)]


def model_signature(used: list[Entry]) -> str:
    """`sha256:<hex>` over the canonical JSON (sorted keys, no spaces, ASCII) of the canonical list."""
    entries = ",".join(sorted({_canonical(entry) for entry in used}))
    digest = hashlib.sha256(f"[{entries}]".encode("ascii")).hexdigest()
    return f"sha256:{digest}"


def resolved_model_mapping(chosen: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Component -> branch, from pairs of their names; branches of one component stand joined by `+`, sorted."""
    mapping: dict[str, set[str]] = {}
    for component, branch in chosen:
        mapping.setdefault(component, set()).add(branch)
    return {component: "+".join(sorted(names)) for component, names in sorted(mapping.items())}


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
