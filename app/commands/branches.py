"""`gateway branches`: what is served, by a gateway or from a folder of models, with what is known of the weights."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.commands.predict.command import by_url
from app.commands.predict.errors import CommandFailed
from app.commands.predict.gateway import branches_of
from app.commands.predict.printing import padded, plain, width_of
from app.commands.predict.repository import default_variant, find, readiness
from app.engine.base import ModelState
from app.engine.report import ReportEngine
from app.engine.weights import WeightsBook
from app.pipelines import inventory
from app.pipelines.base import Router
from app.process.catalogue import load_catalogue
from app.settings import Settings
from routing.catalogue import Catalogue
from routing.policy import Readiness, Wishes
from routing.versions import served_folder

_HEAD = ("family", "branch", "tier", "size", "variant", "state", "weights", "digest")
_DIGEST = 19  # characters: `sha256:` and twelve digits, enough to compare by eye


class FilesEngine(ReportEngine):
    """An engine that can only be asked which models' files are there; it reads no weights.

    Args:
        catalogue: whose branches there may be.
        repository: the folder of models.
        manifest: digests of models that have none beside them.
    """

    name = "files"

    def __init__(self, catalogue: Catalogue, repository: Path, manifest: Path | None = None) -> None:
        book = WeightsBook(repository, manifest)
        models = {
            name: ModelState(
                name,
                Readiness.MISSING,
                version=served_folder(repository / name).name,
                runtime="inprocess",
                weights=book.lookup(name),
            )
            for name in catalogue.models
        }
        found = {
            name: replace(
                models[name],
                readiness=readiness(repository, branch),
                weights=models[branch.weights_model].weights,
            )
            for name, branch in catalogue.branches.items()
        }
        super().__init__({**models, **found})


def branches(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    try:
        document = _of_gateway(parsed) if parsed.url else _of_folder(parsed)
    except CommandFailed as error:
        print(f"gateway branches: {plain(str(error))}", file=sys.stderr)
        return 2
    if parsed.json:
        print(json.dumps(document))
        return 0
    ready = "built" if document.get("engine") == FilesEngine.name else Readiness.READY.value
    rows = [row for family in document["families"] for row in _rows(family, ready, every=parsed.all)]
    for line in _aligned([_HEAD, *rows]):
        print(line)
    hidden = sum(len(family["branches"]) for family in document["families"]) - len(rows)
    if hidden:
        print(f"({hidden} more are not there; --all shows them)", file=sys.stderr)
    return 0


def _of_gateway(parsed: argparse.Namespace) -> dict[str, Any]:
    with closing(by_url(parsed)) as gateway:
        return branches_of(gateway)


def _of_folder(parsed: argparse.Namespace) -> dict[str, Any]:
    settings = Settings(engine="embedded")
    folder = find(parsed.repository, settings)
    catalogue = load_catalogue(settings, repository=folder)
    print(f"gateway: models in {plain(str(folder))}", file=sys.stderr)
    variants = (default_variant(folder, family, settings) for family in catalogue.families.values())
    router = Router(
        catalogue, FilesEngine(catalogue, folder, settings.manifest), ",".join(filter(None, variants))
    )
    return inventory.branches(router, None, Wishes())


def _rows(family: Mapping[str, Any], ready: str, *, every: bool) -> Iterable[tuple[str, ...]]:
    absent = (Readiness.MISSING, Readiness.WEIGHTS_MISSING)
    for branch in family["branches"]:
        if not every and branch["readiness"] in absent:
            continue
        default = branch["variant"] is not None and branch["variant"] == family["default_variant"]
        digest = str(branch["weights_digest"])
        yield (
            str(family["name"]),
            str(branch["name"]),
            branch["tier"] or "",
            "" if branch["size"] is None else str(branch["size"]),
            (branch["variant"] or "") + ("*" if default else ""),
            ready if branch["readiness"] == Readiness.READY else _state(branch),
            str(branch["weights"]),
            digest[:_DIGEST] + ("…" if len(digest) > _DIGEST else ""),
        )


def _state(branch: Mapping[str, Any]) -> str:
    state, reason = str(branch["readiness"]), branch.get("reason")
    return f"{state}: {reason}" if reason else state


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    clean = [[plain(cell) for cell in row] for row in rows]
    widths = [max(width_of(row[column]) for row in clean) for column in range(len(_HEAD))]
    return [
        "  ".join(padded(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in clean
    ]
