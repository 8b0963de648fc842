"""Further versions of a branch in the repository: made beside the default one, made the default one, and removed.

Folders appear by a rename and vanish by one, and a version is in its new place before it leaves the old one; so whoever
reads the repository meanwhile finds a version that is whole. A call that was killed is simply made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from export import build, manifest, repository
from export.artifacts import MODEL_FILE, link, write_atomic
from export.errors import ExportError
from export.plan import Places
from routing.catalogue import Branch, Catalogue, CatalogueError, ModelSpec
from routing.versions import in_version, is_version, served_folder, with_versions

_UNFINISHED, _GONE = ".version-", ".gone-"  # folders at work; not for `artifacts.sweep`, which removes files


def make(
    catalogue: Catalogue,
    wanted: Sequence[Branch],
    asked: str,
    number: str,
    places: Places,
    say: Callable[[str], None],
) -> int:
    """Make a further version of each wanted branch; the number of those that failed.

    Args:
        catalogue: of the default versions.
        wanted: its branches.
        asked: for which weights, as for `build.models`.
        number: of the version.
        places: the folders.
        say: prints a line.

    Raises:
        ExportError: the number is taken, or weights that were asked for aren't there; nothing was made then.
    """
    with _as_export_error():
        fresh = [in_version(branch, number) for branch in wanted]
        known = with_versions(catalogue, {branch.name: (number,) for branch in wanted})
    for branch, version in zip(wanted, fresh, strict=True):
        _refuse_taken(branch, version, number, places)
    _begin(catalogue, {branch.name: one for branch, one in zip(wanted, fresh, strict=True)}, number, places)
    failed = build.models(known, fresh, asked, places)
    say(f"version {number} lies beside the default one: {', '.join(version.name for version in fresh)}")
    return failed


def add_file(catalogue: Catalogue, name: str, number: str, file: Path, places: Places) -> str:
    """Publish an ONNX file as a further version of a branch; return its digest.

    The file holds its own weights. Its tensors are compared with the catalogue when an engine loads it.

    Raises:
        ExportError: the number is taken, or there is no such branch.
        OSError: the file can't be read.
    """
    branch, version = _branch(catalogue, name, number)
    _refuse_taken(branch, version, number, places)
    content = file.read_bytes()
    provenance = manifest.Provenance(
        "checkpoint",
        manifest.Source(file.name, hashlib.sha256(content).hexdigest()),
        {"file": file.name},
        branch.precision,
    )
    _begin(catalogue, {branch.name: version}, number, places)
    record = manifest.publish_graph(
        version.weights_model, content, places.repository, provenance, branch.labels
    )
    manifest.write_manifest(places.repository, places.manifest)
    return record.digest


def _begin(catalogue: Catalogue, versions: Mapping[str, Branch], number: str, places: Places) -> None:
    """Write the configurations and the empty version folders of further versions, by branch."""
    with _as_export_error():
        texts = repository.configs(with_versions(catalogue, dict.fromkeys(versions, (number,))))
    names = [spec.name for version in versions.values() for spec in _models(version)]
    for name in names:
        (places.repository / name / number).mkdir(parents=True, exist_ok=True)
    repository.write_configs({name: texts[name] for name in names}, places.repository)


def promote(catalogue: Catalogue, name: str, number: str, places: Places) -> str | None:
    """Make a version the default one of its branch, and keep the default one beside it; return that one's number.

    None: an earlier call, which was killed, has done so already.

    Raises:
        ExportError: there is no such version, or it is the default one.
    """
    branch, version = _branch(catalogue, name, number)
    before = _before(branch, number, places)
    if before is None and not _there(version, places):
        raise ExportError(f"version {number} of {name} is the default one")
    weights = places.repository / version.weights_model / number / MODEL_FILE
    if not (weights.is_file() or (places.repository / branch.weights_model / number).is_dir()):
        raise ExportError(f"{name} has no version {number} in {places.repository}")
    rows = list(zip(_models(version), _models(branch), strict=True))[::-1]  # parts come before ensembles
    if before is not None:
        _keep(catalogue, branch, before, places)
    for fresh, spec in rows:
        _copy(places.repository / fresh.name, places.repository / spec.name, number)
    for fresh, spec in rows:
        if before is not None:
            _remove_folder(places.repository / spec.name / before)
        _remove_model(places.repository / fresh.name)
    _forget_graphs(catalogue, (branch, version), places)
    manifest.write_manifest(places.repository, places.manifest)
    return before


def remove(catalogue: Catalogue, name: str, number: str, places: Places) -> list[str]:
    """Remove a version that isn't the default one; the names of its models.

    Raises:
        ExportError: there is no such version, or it is the default one.
    """
    branch, version = _branch(catalogue, name, number)
    if not _there(version, places):
        default = served_folder(places.repository / branch.weights_model).name == number
        why = "is the default one" if default else f"isn't in {places.repository}"
        raise ExportError(f"version {number} of {name} {why}")
    names = [spec.name for spec in _models(version)]
    for model in names:  # ensembles come before their parts
        _remove_model(places.repository / model)
    _forget_graphs(catalogue, (version,), places)
    manifest.write_manifest(places.repository, places.manifest)
    return names


def _refuse_taken(branch: Branch, version: Branch, number: str, places: Places) -> None:
    default = served_folder(places.repository / branch.weights_model)
    if not (default / MODEL_FILE).is_file():
        raise ExportError(f"{branch.name} isn't built yet: make its first version without --as-version")
    if default.name == number:
        raise ExportError(f"version {number} of {branch.name} is the default one; take another number")
    if (places.repository / version.weights_model / number / MODEL_FILE).exists():
        raise ExportError(
            f"version {number} of {branch.name} is there already; take another number, or remove it first"
        )


def _branch(catalogue: Catalogue, name: str, number: str) -> tuple[Branch, Branch]:
    """Return a branch, and the branch that a version of it is."""
    branch = catalogue.branches.get(name)
    if branch is None or branch.twin_of is not None or branch.version_of is not None:
        raise ExportError(f"there is no branch {name[:100]!r}")
    if not is_version(number):
        raise ExportError(f"{number[:20]!r} is no number of a version, which is a whole number from 1")
    with _as_export_error():
        return branch, in_version(branch, number)


def _models(branch: Branch) -> list[ModelSpec]:
    """The models of a version alone, ensembles first; a preprocess graph serves all versions."""
    twins = [] if branch.compact is None else [branch.compact.models[0]]
    return [*twins, *(spec for spec in branch.models if spec.kind != "preprocess")]


def _there(version: Branch, places: Places) -> bool:
    return any((places.repository / spec.name).is_dir() for spec in _models(version))


def _before(branch: Branch, number: str, places: Places) -> str | None:
    """The number of the default version that another one replaces; None: none is left to be replaced."""
    folders = [path for spec in _models(branch) for path in (places.repository / spec.name).glob("*")]
    numbers = {path.name for path in folders if path.is_dir() and is_version(path.name)} - {number}
    return max(numbers, key=int, default=None)


def _keep(catalogue: Catalogue, branch: Branch, number: str, places: Places) -> None:
    """Keep the default version as a further one."""
    aside = in_version(branch, number)
    texts = repository.configs(with_versions(catalogue, {branch.name: (number,)}))
    for spec, kept in zip(_models(branch), _models(aside), strict=True):
        repository.write_configs({kept.name: texts[kept.name]}, places.repository)
        _copy(places.repository / spec.name, places.repository / kept.name, number)


def _copy(source: Path, target: Path, number: str) -> None:
    """Put a version folder of one model into the folder of another, under its name; files are hard links."""
    whole, unfinished = target / number, target / f"{_UNFINISHED}{number}"
    if whole.is_dir():
        return
    shutil.rmtree(unfinished, ignore_errors=True)
    if (source / number).is_dir():
        shutil.copytree(
            source / number, unfinished, copy_function=lambda file, copy: link(Path(file), Path(copy))
        )
    else:  # the folder of an ensemble, which is empty
        unfinished.mkdir(parents=True)
    note = unfinished / manifest.WEIGHTS_FILE
    if note.is_file():
        document = {**json.loads(note.read_bytes()), "model": target.name}
        write_atomic(note, manifest.to_json(document))
    unfinished.rename(whole)


def _remove_folder(folder: Path) -> None:
    gone = folder.with_name(f"{_GONE}{folder.name}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _remove_model(folder: Path) -> None:
    """Without its configuration a model isn't one: that file goes first."""
    (folder / repository.CONFIG_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _forget_graphs(catalogue: Catalogue, branches: Sequence[Branch], places: Places) -> None:
    """Remove the graphs from which these models were published: they are of other versions now."""
    for branch in branches:
        places.optimized(catalogue[branch.family].folder, branch.weights_model).unlink(missing_ok=True)


@contextlib.contextmanager
def _as_export_error() -> Iterator[None]:
    try:
        yield
    except CatalogueError as error:
        raise ExportError(str(error)) from error
