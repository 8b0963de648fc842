"""The folder of models that run in this process: where it is, what is built in it, and what a run needs of it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable
from pathlib import Path

from app.commands.predict.errors import NoModels
from app.hints import did_you_mean
from app.installation import CHECKOUT_MODELS, INSTALLED, models
from app.pipelines.base import wishes_of
from app.settings import Settings, from_environment
from routing.catalogue import Branch, Family
from routing.policy import FrameFacts, Readiness, RoutingError, Wishes, route
from routing.reachable import reachable
from routing.versions import served_folder

HOW_TO_BUILD = (
    f"`{'gateway up' if INSTALLED else 'make run'}` builds some; --repository names another folder, "
    "--url a running gateway"
)
Size = tuple[int, int]


def find(given: Path | None, settings: Settings) -> Path:
    """The folder that is named, by option or setting; else the first of the usual ones that holds a model.

    Raises:
        NoModels: there is no such folder.
    """
    if given is None and "repository" in from_environment():
        given = settings.repository
    candidates = [given] if given is not None else _usual(settings)
    there = [folder for folder in candidates if folder.is_dir()]
    if not there:
        raise NoModels(f"no models: there is no folder {candidates[0]}; {HOW_TO_BUILD}")
    return next((folder for folder in there if any(folder.glob("*/[1-9]*/model.onnx"))), there[0])


def _usual(settings: Settings) -> list[Path]:
    """The folder of the settings, that of the checkout, and that of `gateway up`."""
    folders = [settings.repository, CHECKOUT_MODELS]
    with contextlib.suppress(ModuleNotFoundError):  # platformdirs is an extra
        folders.append(models() / "repository")
    return list(dict.fromkeys(folder for folder in folders if folder is not None))


def readiness(repository: Path, branch: Branch) -> Readiness:
    """Read the state from the files; nothing is loaded."""
    folders = {model: repository / model.name for model in branch.models}
    if not all((folder / "config.pbtxt").is_file() for folder in folders.values()):
        return Readiness.MISSING
    graphs = [folder for model, folder in folders.items() if model.kind != "ensemble"]
    built = all((served_folder(folder) / "model.onnx").is_file() for folder in graphs)
    return Readiness.READY if built else Readiness.WEIGHTS_MISSING


def wishes(parsed: argparse.Namespace) -> Wishes:
    """Return the command line's wishes for routing."""
    variant = getattr(parsed, "variant", None)
    return wishes_of(parsed.branch, variant, fallback=parsed.fallback, version=parsed.model_version)


def default_variant(repository: Path, family: Family, settings: Settings) -> str | None:
    """The variant that serves when none is named: the setting's, the family's own, or the only ones that are built."""
    preferred = family.variant_or_default(settings.variant)
    for variant in dict.fromkeys([preferred, *family.variants]):
        if settings.variant in family.variants and variant != preferred:
            break
        if any(readiness(repository, b) is Readiness.READY for b in family.of_variant(variant)):
            return variant
    return preferred


def needed(
    repository: Path, family: Family, wished: Wishes, variant: str | None, sizes: Iterable[Size | None]
) -> list[str]:
    """Names of the branches that pictures of these sizes take; None is a picture of any size.

    Raises:
        NoModels: none of them is built, or no branch is called so.
    """
    ready = {branch.name: readiness(repository, branch) for branch in family.every_branch}
    names: dict[str, None] = {}
    faults: list[RoutingError] = []
    for size in dict.fromkeys(sizes):
        if size is None:
            branches = reachable(family, wished, variant)
            names |= {b.name: None for b in branches if ready[b.name] is Readiness.READY}
            continue
        try:
            names[route(family, FrameFacts(*size), wished, ready, variant).branch.name] = None
        except RoutingError as error:
            faults.append(error)
    if names:
        return list(names)
    if wished.branch is not None and family.branch(wished.branch) is None:
        known = [branch.name for branch in family.branches]
        hint = did_you_mean(wished.branch, known) or f"; it has {', '.join(known)}"
        raise NoModels(f"{family.name} has no branch {wished.branch[:100]!r}{hint}")
    why = faults[0].detail if faults else f"no model of {family.name} can serve"
    raise NoModels(f"{why}; in {repository}: {_there(family, ready)}; {HOW_TO_BUILD}")


def _there(family: Family, ready: dict[str, Readiness]) -> str:
    names = [branch.name for branch in family.branches if ready[branch.name] is Readiness.READY]
    return f"{', '.join(names[:6])}{', …' if len(names) > 6 else ''}" if names else "no model of this family"
