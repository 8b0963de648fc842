"""The catalogue of a service: ours, the user's over it, and further versions of branches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from app.settings import Settings
from routing import overlay, versions
from routing.catalogue import CATALOGUE_PATH, Catalogue, CatalogueError
from routing.rollout import Rollout, rollouts_in


def load_catalogue(
    settings: Settings, path: Path = CATALOGUE_PATH, repository: Path | None = None
) -> Catalogue:
    """Return the catalogue that the settings name.

    Further versions are those whose folders lie in the repository, and those that GATEWAY_ROLLOUT names: a gateway that
    can't read the repository of its Triton knows these alone.

    Args:
        settings: of the service.
        path: of our catalogue.
        repository: another folder of models than that of the settings.

    Raises:
        CatalogueError: the catalogue or a rollout makes no sense; the message names the place.
    """
    catalogue = overlay.load(settings.own_catalogue, path, settings.precision)
    folder = repository or settings.repository
    found = {} if folder is None else versions.found_in(folder, catalogue)
    wanted = {name: set(numbers) for name, numbers in found.items()}
    named = rollouts(settings)
    for rollout in named.values():
        wanted.setdefault(rollout.branch, set()).add(rollout.version)
    try:
        return versions.with_versions(catalogue, wanted)
    except CatalogueError as error:
        raise CatalogueError(f"GATEWAY_ROLLOUT: {error}") from error


def rollouts(settings: Settings) -> Mapping[str, Rollout]:
    """Return the rollouts of the settings, by branch.

    Raises:
        CatalogueError: one can't be read.
    """
    try:
        return rollouts_in(settings.rollout)
    except ValueError as error:
        raise CatalogueError(f"GATEWAY_ROLLOUT: {error}") from error
