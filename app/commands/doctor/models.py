"""The folder of models: which branches are built, and are their files those that were noted?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from app.commands.doctor.report import Row, State
from app.commands.predict.errors import CommandFailed
from app.commands.predict.repository import default_variant, find, readiness
from app.engine.weights import WeightsBook, files_digest
from app.installation import INSTALLED
from app.process.catalogue import load_catalogue
from app.settings import Settings
from routing.catalogue import Branch, Family
from routing.policy import Readiness
from routing.versions import served_folder

_BUILD = (
    "`gateway up` builds the starter set"
    if INSTALLED
    else "`make run` builds the starter set, `make models` more"
)


def rows(given: Path | None, settings: Settings, *, quick: bool) -> Iterator[Row]:
    """The folder, every family, and every built branch's digest.

    Args:
        given: the folder that the command line names.
        settings: an embedded engine needs models; a Triton has its own.
        quick: leave the files' content alone.
    """
    needed = settings.engine == "embedded"
    try:
        folder = find(given, settings)
    except CommandFailed as error:
        yield Row("models", "folder", "failed" if needed else "note", str(error).partition(";")[0], _BUILD)
        return
    catalogue = load_catalogue(settings, repository=folder)
    ready = {name: readiness(folder, branch) for name, branch in catalogue.branches.items()}
    built = sum(state is Readiness.READY for state in ready.values())
    state: State = "ok" if built else "failed" if needed else "note"
    yield Row("models", "folder", state, f"{folder}: {built} branches are built", "" if built else _BUILD)
    for family in catalogue.families.values():
        yield _family(family, ready, default_variant(folder, family, settings))
    book = WeightsBook(folder, settings.manifest)
    random = []
    for name, branch in catalogue.branches.items():
        if ready[name] is not Readiness.READY or branch.twin_of is not None:
            continue
        row = _weights(folder, branch, book, quick=quick)
        if row.state == "ok" and book.lookup(branch.weights_model).kind == "random":
            random.append(name)
        else:
            yield row
    if random:
        said = f"{', '.join(random)}: their answers mean nothing"
        yield Row(
            "weights",
            "random",
            "warning",
            said,
            "build them from weights: WEIGHTS of `make models`, --weights of `gateway up`",
        )


def _family(family: Family, ready: Mapping[str, Readiness], variant: str | None) -> Row:
    usual = family.of_variant(variant)
    there = [branch for branch in usual if ready[branch.name] is Readiness.READY]
    if not there:
        return Row("family", family.name, "note", "no model is built")
    absent = ", ".join(str(branch.size) for branch in usual if branch not in there)
    said = ", ".join(branch.name for branch in there)
    if not absent:
        return Row("family", family.name, "ok", said)
    return Row("family", family.name, "note", f"{said}; not built: {absent}")


def _weights(folder: Path, branch: Branch, book: WeightsBook, *, quick: bool) -> Row:
    noted = book.lookup(branch.weights_model)
    said = f"{noted.kind}, {noted.digest[:19]}…" if noted.digest != "unknown" else "no digest is recorded"
    if noted.digest == "unknown":
        return Row(
            "weights",
            branch.name,
            "warning",
            said,
            "answers can't say which weights made them: build it again",
        )
    try:
        if not quick and files_digest(served_folder(folder / branch.weights_model)) != noted.digest:
            return Row(
                "weights",
                branch.name,
                "failed",
                f"{said}: the files don't have the recorded digest",
                "build it again",
            )
    except OSError as error:
        return Row(
            "weights",
            branch.name,
            "failed",
            f"{error.filename}: {error.strerror}",
            "let this user read the folder",
        )
    return Row("weights", branch.name, "ok", said)
