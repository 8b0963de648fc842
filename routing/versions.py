"""Further versions of a branch beside the one that serves: each a branch of its own, with models of its own.

Version 2 of `midas_384` is the branch `midas_384_v2` over the models `midas_384_v2` and `midas_384_v2_onnx`, whose
files lie in version folders named 2. Triton loads the versions of one model together and gives all of them up if one
fails, and an ensemble names the version of its parts; so versions that must not disturb each other are models of their
own. A preprocess graph has no weights and serves all versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from routing.catalogue import Branch, Catalogue, CatalogueError, Family
from routing.precision import copied

FIRST = "1"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_NAME = re.compile(rf"(.+)_v({_NUMBER.pattern})")


def is_version(text: str) -> bool:
    """Tell if the text is the number of a version: 1 to 999999999, without leading zeros."""
    return _NUMBER.fullmatch(text) is not None


def name_of(branch: str, version: str) -> str:
    """Return the name of a further version of a branch."""
    return f"{branch}_v{version}"


def in_version(branch: Branch, version: str) -> Branch:
    """Return a further version of a branch: `<name>_v<version>`, and its twin.

    Raises:
        CatalogueError: others made the branch's model, so that its folder is theirs.
    """
    if any(model.mapped for model in branch.models):
        raise CatalogueError(f"{branch.name} can't have versions here: its config.pbtxt is written by others")
    other = copied(branch, name_of(branch.name, version))
    compact = other.compact
    if compact is not None and branch.compact is not None:
        compact = replace(compact, version=version, version_of=branch.compact.name)
    return replace(
        other, compact=compact, required=False, when_ready=False, version=version, version_of=branch.name
    )


def with_versions(catalogue: Catalogue, versions: Mapping[str, Iterable[str]]) -> Catalogue:
    """Return the catalogue with further versions of branches.

    Args:
        catalogue: the branches that serve by default.
        versions: numbers by the name of a branch, which is no twin.

    Raises:
        CatalogueError: there is no such branch, or a model of such a name is there already.
    """
    wanted = {name: sorted(set(numbers), key=int) for name, numbers in versions.items()}
    wanted = {name: numbers for name, numbers in wanted.items() if numbers}
    for name, numbers in wanted.items():
        branch = catalogue.branches.get(name)
        if branch is None or branch.twin_of is not None:
            raise CatalogueError(f"{name[:100]}: there is no such branch")
        for number in numbers:
            if taken := {model.name for model in _own(in_version(branch, number))} & catalogue.models.keys():
                raise CatalogueError(f"{name}, version {number}: {min(taken)} is another model already")
    if not wanted:
        return catalogue
    families = {name: _with_versions(family, wanted) for name, family in catalogue.families.items()}
    return Catalogue(MappingProxyType(families))


def found_in(repository: Path, catalogue: Catalogue) -> Mapping[str, tuple[str, ...]]:
    """Return the versions whose folders lie in a repository, by branch; nothing if it can't be read."""
    found: dict[str, list[str]] = {}
    for name in _names(repository):
        match = _NAME.fullmatch(name)
        branch = catalogue.branches.get(match[1]) if match else None
        if match is None or branch is None or name in catalogue.models or not _possible(branch):
            continue
        found.setdefault(branch.name, []).append(match[2])
    return {name: tuple(sorted(numbers, key=int)) for name, numbers in found.items()}


def served_folder(model: Path) -> Path:
    """Return the version folder of a model that serves: the one with the highest number, as in Triton.

    Args:
        model: the folder of the model; without a version folder, the first one is meant.
    """
    numbers = [name for name in _names(model) if is_version(name)]
    return model / max(numbers, key=int, default=FIRST)


def _possible(branch: Branch) -> bool:
    return branch.twin_of is None and not any(model.mapped for model in branch.models)


def _own(branch: Branch) -> list[Branch]:
    return [branch] if branch.compact is None else [branch, branch.compact]


def _with_versions(family: Family, wanted: Mapping[str, Iterable[str]]) -> Family:
    return replace(family, branches=tuple(_of_branch(branch, wanted) for branch in family.branches))


def _of_branch(branch: Branch, wanted: Mapping[str, Iterable[str]]) -> Branch:
    if branch.alternate is not None:
        branch = replace(branch, alternate=_of_branch(branch.alternate, wanted))
    versions = tuple(in_version(branch, number) for number in wanted.get(branch.name, ()))
    compact = branch.compact
    if compact is not None:
        compact = replace(compact, versions=tuple(one.compact for one in versions if one.compact is not None))
    return replace(branch, versions=versions, compact=compact)


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []
