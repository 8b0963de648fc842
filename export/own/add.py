"""Add a model of one's own, all of it or nothing; and take one away."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

from export import artifacts, build, manifest, repository
from export.errors import ExportError
from export.own import entry
from export.own.request import Plan, Request
from routing import overlay
from routing.catalogue import Branch, Catalogue, CatalogueError, read_labels, with_twins
from routing.own_families import OWN_FAMILIES
from routing.versions import served_folder

OPTIMIZED = "own"
Planner = Callable[[Request, tuple[str, ...] | None], Plan]


@dataclass(frozen=True, slots=True)
class Added:
    """A finished addition: the branches with the digest of each, and the catalogue's file."""

    branches: Sequence[tuple[Branch, str]]
    file: Path


def add(request: Request, say: Callable[[str], None]) -> Added:
    """Make the models and serve them under a name; the catalogue's entry comes last.

    Raises:
        ExportError: it can't be done; then everything is as it was before.
    """
    planner = _planner(request)
    file = _file(request)
    with artifacts.alone(request.places.models):
        plan = planner(request, _labels(request.labels))
        names = next((variant.labels for variant in plan.variants if variant.labels), ())
        labels = f"{request.name}.txt" if names else None
        text = entry.text(request.name, plan.variants, labels)
        catalogue = _catalogue(request, file, text, names)
        wanted = [
            branch
            for variant in plan.variants
            for branch in catalogue[variant.family].of_variant(request.name)
        ]
        before = _branches_of(request.catalogue, request.name) if request.replace else []
        with _whole(request, [branch for branch in wanted if branch.name not in {b.name for b in before}]):
            made = [(branch, _make(request, plan, catalogue, branch, say)) for branch in wanted]
            if labels is not None:
                content = "".join(f"{name}\n" for name in names).encode()
                artifacts.write_atomic(request.catalogue / labels, content)
            artifacts.write_atomic(file, text.encode())
        gone = [branch for branch in before if branch.name not in {b.name for b in wanted}]
        _drop(request.places.repository, request.places.models, gone)
        manifest.write_manifest(request.places.repository, request.places.manifest)
    return Added(made, file)


def _planner(request: Request) -> Planner:
    """Return the function that plans the models of a request's family.

    Raises:
        ExportError: there is no such family, or it takes no such weights or labels.
    """
    family = OWN_FAMILIES.get(request.family)
    if family is None:
        raise ExportError(f"--family: is one of {', '.join(OWN_FAMILIES)}")
    if request.weights.suffix == ".onnx" and family.pytorch:
        takers = ", ".join(row.name for row in OWN_FAMILIES.values() if not row.pytorch)
        raise ExportError(
            f"{request.weights}: only {takers} takes ONNX files; docs/own-models.md explains how to use a model "
            "that Triton serves already"
        )
    if request.labels is not None and not family.classes:
        raise ExportError(f"--labels: {request.family} has no classes")
    module, _, function = family.planner.partition(":")
    return cast(Planner, getattr(import_module(module), function))


def _file(request: Request) -> Path:
    """The catalogue's file of this name, which isn't there yet."""
    if request.catalogue.exists() and not request.catalogue.is_dir():
        raise ExportError(
            f"{request.catalogue} is a file, but each model gets a file of its own: set GATEWAY_CATALOGUE to a folder"
        )
    file = request.catalogue / f"{request.name}.toml"
    if file.exists() and not entry.is_ours(file):
        raise ExportError(f"{file} was written by hand; take another name")
    if file.exists() and not request.replace:
        raise ExportError(
            f"{request.name} exists already ({file}): use --replace, or run `gateway models remove` first"
        )
    return file


def _labels(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        return read_labels(path.parent, path.name)
    except CatalogueError as error:
        raise ExportError(f"{path}: {error}") from error


def _catalogue(request: Request, file: Path, text: str, names: Sequence[str]) -> Catalogue:
    """The catalogue as it will be.

    Raises:
        ExportError: the entry doesn't go with it.
    """
    try:
        there = overlay.read(request.catalogue) if request.catalogue.exists() else []
        others = [source for source in there if source.path != file]
        return overlay.with_sources([*others, overlay.source_of(file, text, {f"{request.name}.txt": names})])
    except CatalogueError as error:
        said = (
            str(error).removeprefix(f"{file}:").partition(": ")[2] if str(file) in str(error) else str(error)
        )
        raise ExportError(said or str(error)) from error


@contextlib.contextmanager
def _whole(request: Request, fresh: Sequence[Branch]) -> Iterator[None]:
    """At a bad end, nothing is left of the branches that weren't there before."""
    taken = [spec.name for branch in with_twins(fresh) for spec in branch.models]
    there = {name for name in taken if (request.places.repository / name).exists()}
    own = {branch.name for branch in with_twins(fresh)} | {b.weights_model for b in fresh}
    if clash := sorted(there & own):
        raise ExportError(f"{request.places.repository / clash[0]} exists already, and no catalogue names it")
    try:
        yield
    except BaseException:
        _drop(request.places.repository, request.places.models, fresh, keep=there)
        raise


def _make(
    request: Request, plan: Plan, catalogue: Catalogue, branch: Branch, say: Callable[[str], None]
) -> str:
    """Publish the models of a branch and of its twin; the digest of the weights."""
    places, name = request.places, branch.weights_model
    content = plan.make(branch)
    optimized = places.models / "optimized" / OPTIMIZED / request.name / f"{name}.onnx"
    size = len(content)
    content, shared = build.share(content, optimized.parent) if plan.shared else (content, [])
    artifacts.write_atomic(optimized, content)
    texts = repository.configs(catalogue)
    models = {spec.name: spec for twin in with_twins([branch]) for spec in twin.models}
    repository.write_configs({name: texts[name] for name in models}, places.repository)
    for spec in models.values():
        served_folder(places.repository / spec.name).mkdir(parents=True, exist_ok=True)
        if spec.kind == "preprocess" and branch.prepare is not None:
            build.preprocess_graph(spec, branch.prepare, places)
    record = manifest.publish(name, optimized, places.repository, plan.provenance, branch.labels, shared)
    say(f"{name}: {size / 1e6:.1f} MB, {record.digest}")
    return record.digest


def remove(name: str, catalogue: Path, repository: Path, models: Path) -> list[str]:
    """Take away a variant that `add` has added: the entry first, then its models; the names of these.

    Raises:
        ExportError: there is none of this name, or somebody wrote it by hand.
    """
    file = catalogue / f"{name}.toml"
    if not file.is_file():
        raise ExportError(f"{name} isn't one of your models: there is no {file}")
    if not entry.is_ours(file):
        raise ExportError(f"{file} was written by hand: remove its [[variant]] by hand, too")
    with artifacts.alone(models):
        branches = _branches_of(catalogue, name)
        file.unlink()
        (catalogue / f"{name}.txt").unlink(missing_ok=True)
        gone = _drop(repository, models, branches)
        manifest.write_manifest(repository, models / "manifest.json")
    return gone


def _branches_of(catalogue: Path, name: str) -> list[Branch]:
    """The branches of an own variant, as its file says them."""
    file = catalogue / f"{name}.toml"
    if not file.is_file():
        return []
    try:
        known = overlay.load(file)
    except CatalogueError as error:
        raise ExportError(str(error)) from error
    return [branch for family in known.families.values() for branch in family.branches if branch.own]


def _drop(
    repository: Path, models: Path, branches: Sequence[Branch], keep: set[str] | None = None
) -> list[str]:
    """Remove the models of branches, but for graphs that others share; the names of those that were there."""
    gone = []
    for branch in with_twins(branches):
        for spec in branch.models:
            shared = branch.twin_of is not None and spec.kind == "preprocess"
            folder = repository / spec.name
            if not shared and spec.name not in (keep or ()) and folder.is_dir():
                shutil.rmtree(folder)
                gone.append(spec.name)
    for variant in {branch.variant for branch in branches}:
        shutil.rmtree(models / "optimized" / OPTIMIZED / str(variant), ignore_errors=True)
    return gone
