"""Models that the embedded engine would serve, found in the files alone: nothing is loaded, and nothing runs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from app.engine.base import ModelState
from app.engine.embedded.model import device
from app.engine.report import ReportEngine
from app.engine.weights import WeightsBook
from routing.catalogue import Branch, Catalogue
from routing.policy import Readiness
from routing.versions import served_folder


class SurveyEngine(ReportEngine):
    """An engine that can only be asked what is ready: every branch whose files are there, with their digests.

    Args:
        catalogue: whose branches there may be.
        repository: the model repository.
        book: of its weights.
        branches: names of the branches that would be loaded.
    """

    name = "survey"

    def __init__(
        self, catalogue: Catalogue, repository: Path, book: WeightsBook, branches: Collection[str]
    ) -> None:
        self._repository = repository
        self._book = book
        nothing = ModelState("", Readiness.UNAVAILABLE, device=device(), runtime="inprocess")
        states = {name: replace(nothing, name=name) for name in catalogue.models}
        for name in branches:
            states[name] = self._found(catalogue.branches[name], states[name])
        super().__init__(states)

    def _found(self, branch: Branch, state: ModelState) -> ModelState:
        folders = [self._repository / model.name for model in branch.models]
        if not all((folder / "config.pbtxt").is_file() for folder in folders):
            return replace(state, readiness=Readiness.MISSING)
        try:
            weights = self._book.verified(self._folder(branch.weights_model), branch.weights_model)
            before = branch.preprocess_model
            digest = self._book.verified(self._folder(before), before).digest if before else None
        except OSError:
            return replace(state, readiness=Readiness.WEIGHTS_MISSING)
        version = self._folder(branch.name).name
        return replace(
            state, readiness=Readiness.READY, version=version, weights=weights, preprocess_digest=digest
        )

    def _folder(self, model: str) -> Path:
        return served_folder(self._repository / model)
