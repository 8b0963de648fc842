"""The plan of a build: models and their weights, decided before anything is made."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from export import manifest
from export.errors import ExportError
from export.exporters import EXPORTERS, Exporter
from export.weights import Weights, hub_pretrained, pretrained, random_weights
from routing.catalogue import Branch, Catalogue, Family

SETS = ("starter", "baseline", "all")
STARTER_FAMILY, STARTER_VARIANT = "detect", "n"
ADVICE = (
    "For real answers: make models WEIGHTS=PATH (a folder with yolo11n.pt), or run this again when online."
)


@dataclass(frozen=True, slots=True)
class Places:
    """Folders of models: the Triton repository, and the folder of graphs, checkpoints and the manifest."""

    repository: Path
    models: Path

    def optimized(self, folder: str, name: str) -> Path:
        return self.models / "optimized" / folder / f"{name}.onnx"

    @property
    def checkpoints(self) -> Path:
        return self.models / "checkpoints"

    @property
    def manifest(self) -> Path:
        return self.models / "manifest.json"


@dataclass(frozen=True, slots=True)
class Task:
    """One model to make from `weights`, or to keep as `there` says it is (then `weights` is None)."""

    branch: Branch
    exporter: Exporter
    weights: Weights | None
    there: manifest.Record | None


def branches(
    catalogue: Catalogue, chosen: str, variants: Sequence[str] | None, families: Sequence[str] | None = None
) -> list[Branch]:
    """The branches of a set, in the catalogue's order; `variants` replace the set's in the families that have them.

    With `families`, only theirs; names that begin with `!` are those of families to leave out.

    Raises:
        ExportError: a variant that no family has, or a family that isn't in the catalogue.
    """
    asked = _families(catalogue, families or ())
    known = {variant for family in catalogue.families.values() for variant in family.variants}
    if unknown := sorted(set(variants or ()) - known):
        raise ExportError(f"no variant {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [
        branch
        for family in catalogue.families.values()
        if chosen != "starter" or family.name == STARTER_FAMILY
        if family.name in asked
        for branch in family.branches
        if branch.variant is None or branch.variant in _variants(family, chosen, variants or ())
    ]


def _families(catalogue: Catalogue, families: Sequence[str]) -> set[str]:
    names = {family.removeprefix("!") for family in families}
    if unknown := sorted(names - set(catalogue.families)):
        raise ExportError(f"no family {', '.join(unknown)}; there are {', '.join(catalogue.families)}")
    left_out = {family.removeprefix("!") for family in families if family.startswith("!")}
    return (names - left_out or set(catalogue.families)) - left_out


def _variants(family: Family, chosen: str, asked: Sequence[str]) -> tuple[str, ...]:
    if own := tuple(variant for variant in family.variants if variant in asked):
        return own
    if chosen == "all":
        return family.variants
    return (STARTER_VARIANT if chosen == "starter" else str(family.default_variant),)


@dataclass
class Planner:
    """Turns what was asked for into tasks; `unreachable` holds the hosts that failed in this run, with the error.

    `advice` says how to get other weights than random ones.
    """

    places: Places
    asked: str
    advice: str = ADVICE
    unreachable: dict[str, str] = field(default_factory=dict)

    def tasks(self, wanted: Sequence[Branch]) -> list[Task]:
        """A task for every branch that has an exporter.

        Raises:
            ExportError: weights that were asked for aren't there.
        """
        tasks, errors = [], []
        for branch in wanted:
            if branch.family in EXPORTERS:
                try:
                    tasks.append(self._task(branch, EXPORTERS[branch.family]))
                except ExportError as error:
                    errors.append(str(error))
        if errors:
            raise ExportError("\n".join(dict.fromkeys(errors)))  # the sizes of a variant miss the same file
        if self.asked == "auto":
            shout([task for task in tasks if _is_random(task)], self.unreachable, self.advice)
        return tasks

    def _task(self, branch: Branch, exporter: Exporter) -> Task:
        there = manifest.read(branch.weights_model, self.places.repository)
        weights = self._weights(branch, exporter, there)
        wanted = exporter.provenance(weights) if weights else None
        if there and there.provenance == wanted:
            weights = None
        return Task(branch, exporter, weights, there)

    def _weights(self, branch: Branch, exporter: Exporter, there: manifest.Record | None) -> Weights | None:
        if self.asked == "random":
            return random_weights()
        if self.asked == "pretrained":
            return self._pretrained(branch, exporter)
        if self.asked == "auto":
            return self._auto(branch, exporter, there)
        return exporter.find(Path(self.asked), branch)

    def _auto(self, branch: Branch, exporter: Exporter, there: manifest.Record | None) -> Weights | None:
        """Somebody's checkpoint stays; else the official weights; else what is there or random ones."""
        kind = there.provenance.weights if there else None
        if there and (kind == "checkpoint" or (kind == "pretrained" and _current(there, exporter))):
            return None
        try:
            return self._pretrained(branch, exporter)
        except ExportError:
            return None if kind == "pretrained" else random_weights()

    def _pretrained(self, branch: Branch, exporter: Exporter) -> Weights:
        """The official weights. A host that failed isn't asked again in this run: each try may take seconds."""
        url, name = exporter.url(branch), exporter.checkpoint_name(branch)
        host = str(urlsplit(url).hostname)
        online = host not in self.unreachable
        try:
            if exporter.hub:
                return hub_pretrained(url, self.places.checkpoints, name, online=online)
            return pretrained(url, self.places.checkpoints, online=online)
        except ExportError as error:
            self.unreachable.setdefault(host, str(error))
            raise


def _current(record: manifest.Record, exporter: Exporter) -> bool:
    return record.provenance.exporter == exporter.versions()


def _is_random(task: Task) -> bool:
    kind = task.weights.kind if task.weights else task.there.provenance.weights if task.there else None
    return kind == "random"


def shout(tasks: Sequence[Task], reasons: dict[str, str], advice: str = ADVICE) -> None:
    """Say so that nobody overlooks it that models recognise nothing; silent without tasks."""
    if not tasks:
        return
    lines = [
        "WARNING: RANDOM WEIGHTS",
        f"for {', '.join(task.branch.weights_model for task in tasks)}.",
        "They recognise nothing: their answers are noise, good for trying out the plumbing only.",
        *reasons.values(),
        advice,
    ]
    bar = "!" * 100
    print(bar, *(f"!! {line}" for line in lines), bar, sep="\n", file=sys.stderr, flush=True)
