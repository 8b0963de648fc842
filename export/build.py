"""What to make, what is there already, and one line of progress a model."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from export import manifest, preprocess
from export.artifacts import write_atomic, write_if_changed
from export.errors import ExportError
from export.exporters import EXPORTERS, Exporter
from export.weights import Weights, checkpoint, pretrained, random_weights
from routing.catalogue import Branch, Catalogue, Family

SETS = ("starter", "baseline", "all")
STARTER_FAMILY, STARTER_VARIANT = "detect", "n"


@dataclass(frozen=True, slots=True)
class Places:
    """Where models lie: the Triton repository, and the folder of graphs, checkpoints and the manifest."""

    repository: Path
    models: Path

    def optimized(self, folder: str, name: str) -> Path:
        return self.models / "optimized" / folder / f"{name}.onnx"

    @property
    def manifest(self) -> Path:
        return self.models / "manifest.json"


def branches(catalogue: Catalogue, chosen: str, variants: Sequence[str] | None) -> list[Branch]:
    """The branches of a set, in the catalogue's order; `variants` replace those of the set.

    Raises:
        ExportError: a variant that no family has.
    """
    known = {variant for family in catalogue.families.values() for variant in family.variants}
    if unknown := sorted(set(variants or ()) - known):
        raise ExportError(f"no variant {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [
        branch
        for family in catalogue.families.values()
        if chosen != "starter" or family.name == STARTER_FAMILY
        for branch in family.branches
        if branch.variant is None or branch.variant in (variants or _variants(family, chosen))
    ]


def _variants(family: Family, chosen: str) -> tuple[str, ...]:
    if chosen == "all":
        return family.variants
    return (STARTER_VARIANT if chosen == "starter" else str(family.default_variant),)


def preprocess_graphs(catalogue: Catalogue, places: Places) -> None:
    """Build and publish every `preprocess_*` graph: they take milliseconds, so only the writing is skipped."""
    made = 0
    written = 0
    for branch in catalogue.branches.values():
        prepare = catalogue[branch.family].prepare
        for spec in branch.models:
            if spec.kind != "preprocess" or prepare is None:
                continue
            made += 1
            provenance = preprocess.provenance(spec)
            optimized = places.optimized("preprocess", spec.name)
            changed = write_if_changed(optimized, preprocess.build(spec, prepare))
            there = manifest.read(spec.name, places.repository)
            if changed or there is None or there.provenance != provenance:
                manifest.publish(spec.name, optimized, places.repository, provenance)
                written += 1
    manifest.write_manifest(places.repository, places.manifest)
    print(f"{made} preprocess graphs under {places.repository}, {written} written")


@dataclass
class Models:
    """One run of `export models`."""

    catalogue: Catalogue
    places: Places
    asked: str
    unreachable: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def run(self, wanted: Sequence[Branch]) -> int:
        """Make every branch; 0 when all that has an exporter is there."""
        if any(self.catalogue[branch.family].ensemble for branch in wanted):
            preprocess_graphs(self.catalogue, self.places)
        work = [branch for branch in wanted if branch.family in EXPORTERS]
        plan = [(branch, *self._plan(branch)) for branch in work]  # a missing file shows before the first export
        for number, (branch, record, weights) in enumerate(plan, 1):
            self._one(f"[{number}/{len(plan)}] {branch.weights_model:<12}", branch, record, weights)
        manifest.write_manifest(self.places.repository, self.places.manifest)
        self._say_missing(wanted)
        return 1 if self.failed else 0

    def _plan(self, branch: Branch) -> tuple[manifest.Record | None, Weights | None]:
        """What is there, and the weights to make it from (None: keep what is there)."""
        exporter = EXPORTERS[branch.family]
        record = manifest.read(branch.weights_model, self.places.repository)
        weights = self._weights(branch, exporter, record)
        if record and weights and record.provenance == exporter.provenance(weights):
            return record, None
        return record, weights

    def _weights(self, branch: Branch, exporter: Exporter, record: manifest.Record | None) -> Weights | None:
        if self.asked == "random":
            return random_weights()
        if self.asked == "pretrained":
            return self._pretrained(branch, exporter)
        if self.asked != "auto":
            return checkpoint(Path(self.asked), exporter.checkpoint_name(branch))
        return self._auto(branch, exporter, record)

    def _auto(self, branch: Branch, exporter: Exporter, record: manifest.Record | None) -> Weights | None:
        """Trained weights that are there stay; else the official ones; else random ones, loudly."""
        trained = record is not None and record.provenance.weights != "random"
        if record and trained and record.provenance.weights == "checkpoint":
            return None
        try:
            return self._pretrained(branch, exporter)
        except ExportError as error:
            if trained:
                return None
            _shout(branch.weights_model, error)
            return random_weights()

    def _pretrained(self, branch: Branch, exporter: Exporter) -> Weights:
        """The official weights. A host that didn't answer isn't asked again in this run."""
        url = exporter.url(branch)
        host = str(urlsplit(url).hostname)
        if host in self.unreachable:
            raise ExportError(self.unreachable[host])
        try:
            return pretrained(url, self.places.models / "checkpoints")
        except ExportError as error:
            self.unreachable[host] = str(error)
            raise

    def _one(self, head: str, branch: Branch, record: manifest.Record | None, weights: Weights | None) -> None:
        if record and weights is None:
            kept = record.provenance
            print(f"{head} is there, {record.digest}, weights: {kept.weights} ({kept.source.name})", flush=True)
            return
        assert weights is not None
        try:
            print(f"{head} {self._export(branch, weights)}", flush=True)
        except ExportError as error:
            self.failed.append(branch.name)
            print(f"{head} FAILED: {error}", file=sys.stderr, flush=True)

    def _export(self, branch: Branch, weights: Weights) -> str:
        began = time.perf_counter()
        family, exporter = self.catalogue[branch.family], EXPORTERS[branch.family]
        content, labels = exporter.make()(branch, weights)
        optimized = self.places.optimized(family.folder, branch.weights_model)
        write_atomic(optimized, content)
        record = manifest.publish(
            branch.weights_model,
            optimized,
            self.places.repository,
            exporter.provenance(weights),
            labels or family.labels,
        )
        manifest.write_manifest(self.places.repository, self.places.manifest)
        took = time.perf_counter() - began
        return f"exported {len(content) / 1e6:.1f} MB in {took:.1f} s, {record.digest}, weights: {weights}"

    def _say_missing(self, wanted: Sequence[Branch]) -> None:
        for name in dict.fromkeys(branch.family for branch in wanted if branch.family not in EXPORTERS):
            names = ", ".join(branch.name for branch in wanted if branch.family == name)
            print(f"{name}: no exporter yet, not made: {names}")


def _shout(model: str, error: ExportError) -> None:
    print(f"WARNING {model} RANDOM: {error}", file=sys.stderr)
