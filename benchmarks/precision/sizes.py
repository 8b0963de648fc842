"""Bytes of the weights of each network, in both precisions: files that sizes share count once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from routing.catalogue import Branch


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes on disk of all graphs and weights of a network; of its branches in one precision."""

    network: str
    branches: int
    fp32: int
    fp16: int


def sizes(repository: Path, pairs: Iterable[tuple[Branch, Branch]]) -> list[Size]:
    """One row per family and variant."""
    groups: dict[str, list[tuple[Branch, Branch]]] = {}
    for single, half in pairs:
        name = single.family if single.variant is None else f"{single.family} {single.variant}"
        groups.setdefault(name, []).append((single, half))
    return [
        Size(
            name,
            len(group),
            _bytes(repository, (s for s, _ in group)),
            _bytes(repository, (h for _, h in group)),
        )
        for name, group in groups.items()
    ]


def _bytes(repository: Path, branches: Iterable[Branch]) -> int:
    folders = (repository / branch.weights_model / "1" for branch in branches)
    files = (file for folder in folders for file in folder.iterdir() if file.suffix in (".onnx", ".bin"))
    return sum({(s.st_dev, s.st_ino): s.st_size for s in (file.stat() for file in files)}.values())
