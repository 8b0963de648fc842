"""Make what was planned: files first, their provenance last, one line of progress a model."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from export import manifest, preprocess, sharing
from export.artifacts import MODEL_FILE, link, write_atomic, write_if_changed
from export.errors import ExportError
from export.exporters import EXPORTERS
from export.plan import ADVICE, Places, Planner, Task
from export.weights import Weights
from routing.catalogue import Branch, Catalogue, ModelSpec, Prepare, with_twins
from routing.versions import served_folder


def models(
    catalogue: Catalogue, wanted: Sequence[Branch], asked: str, places: Places, advice: str = ADVICE
) -> int:
    """Make every model that has an exporter; the number of those that failed.

    `advice` says how to get other weights, where only random ones can be had.

    Raises:
        ExportError: weights that were asked for aren't there; nothing was made then.
    """
    tasks = Planner(places, asked, advice).tasks(wanted)
    preprocess_graphs(catalogue, places, dict.fromkeys(branch.family for branch in wanted))
    width = max((len(task.branch.weights_model) for task in tasks), default=0)
    failed = 0
    for number, task in enumerate(tasks, 1):
        print(f"[{number}/{len(tasks)}] {task.branch.weights_model:<{width}}  ", end="", flush=True)
        failed += not _done(task, catalogue, places)
    manifest.write_manifest(places.repository, places.manifest)
    _say_missing(wanted)
    return failed


def preprocess_graphs(catalogue: Catalogue, places: Places, families: Iterable[str]) -> None:
    """Build and publish the `preprocess_*` graphs: that takes milliseconds, so only the writing is skipped."""
    models = {spec.name: (spec, prepare) for spec, prepare in _preprocess_models(catalogue, families)}
    written = [preprocess_graph(spec, prepare, places) for spec, prepare in models.values()]
    manifest.write_manifest(places.repository, places.manifest)
    print(f"{len(written)} preprocess graphs under {places.repository}, {sum(written)} written")


def _preprocess_models(catalogue: Catalogue, families: Iterable[str]) -> Iterator[tuple[ModelSpec, Prepare]]:
    for branch in (branch for family in families for branch in catalogue[family].every_branch):
        for spec in branch.models:
            if spec.kind == "preprocess" and branch.prepare is not None:
                yield spec, branch.prepare


def preprocess_graph(spec: ModelSpec, prepare: Prepare, places: Places) -> bool:
    """Build and publish one graph; whether anything had to be written."""
    optimized, provenance = places.optimized("preprocess", spec.name), preprocess.provenance(spec)
    changed = write_if_changed(optimized, preprocess.build(spec, prepare))
    there = manifest.read(spec.name, places.repository)
    if there and there.provenance == provenance and not changed:
        _note_memory(there, places)
        return False
    manifest.publish(spec.name, optimized, places.repository, provenance)
    return True


def _done(task: Task, catalogue: Catalogue, places: Places) -> bool:
    """Finish the line of one model; False when it failed, and the others go on."""
    try:
        print(
            _export(task, task.weights, catalogue, places) if task.weights else _keep(task, catalogue, places)
        )
    except ExportError as error:
        print("FAILED", flush=True)
        print(f"error: {error}", file=sys.stderr, flush=True)
        return False
    return True


def _export(task: Task, weights: Weights, catalogue: Catalogue, places: Places) -> str:
    began = time.perf_counter()
    family, name = catalogue[task.branch.family], task.branch.weights_model
    content, labels = task.exporter.make()(task.branch, weights)
    optimized = places.optimized(family.folder, name)
    size = len(content)
    content, shared = share(content, optimized.parent) if task.exporter.shared else (content, [])
    write_atomic(optimized, content)
    _version_folders(task, places)
    record = manifest.publish(
        name,
        optimized,
        places.repository,
        task.exporter.provenance(weights),
        labels or task.branch.labels,
        shared,
    )
    manifest.write_manifest(places.repository, places.manifest)
    took = time.perf_counter() - began
    return f"exported {size / 1e6:.1f} MB in {took:.1f} s, {_said(record)}"


def share(content: bytes, folder: Path) -> tuple[bytes, list[str]]:
    """The graph without the weights that other sizes have too, and the files in `folder` that hold those."""
    graph, name, data = sharing.split(content)
    if name is None:
        return graph, []
    sharing.store(folder, name, data)
    return graph, [name]


def _keep(task: Task, catalogue: Catalogue, places: Places) -> str:
    if task.there is None:
        raise ExportError(f"{task.branch.weights_model}: nothing to keep and nothing to make it from")
    optimized = places.optimized(catalogue[task.branch.family].folder, task.there.model)
    served = served_folder(places.repository / task.there.model)
    for file in task.there.files:
        beside = optimized if file == MODEL_FILE else optimized.with_name(file)
        if not beside.is_file():
            link(served / file, beside)
    _version_folders(task, places)
    _note_memory(task.there, places)
    return f"is there, {_said(task.there)}"


def _note_memory(record: manifest.Record, places: Places) -> None:
    """Estimate the memory of a model that an older version has built."""
    if record.memory is None:
        manifest.note_memory(record.model, places.repository)


def _version_folders(task: Task, places: Places) -> None:
    """Triton wants the folder of an ensemble, too; git holds no empty one."""
    for branch in with_twins([task.branch]):
        served_folder(places.repository / branch.name).mkdir(parents=True, exist_ok=True)


def _said(record: manifest.Record) -> str:
    return f"{record.digest}, weights: {record.provenance.weights} ({record.provenance.source.name})"


def _say_missing(wanted: Sequence[Branch]) -> None:
    for family in dict.fromkeys(branch.family for branch in wanted if branch.family not in EXPORTERS):
        names = ", ".join(branch.name for branch in wanted if branch.family == family)
        print(f"{family}: no exporter yet, not made: {names}")
