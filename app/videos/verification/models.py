"""The models that made an output, compared with those at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from app.videos.verification.documents import Document
from routing.provenance import UNKNOWN

Verdict = Literal["same", "differs", "missing", "unknown"]
_WORST: tuple[Verdict, ...] = ("differs", "missing", "unknown", "same")
_UNTOLD: Verdict = "unknown"


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of a branch's files: its weights, and its preprocess graph if it has one."""

    weights: str
    preprocess: str | None = None

    def words(self) -> str:
        """Return the digests for people."""
        return self.weights + ("" if self.preprocess is None else f" with preprocess {self.preprocess}")


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One model of a component: the digests of the files that made the numbers, and of those at hand.

    `unknown`: one of the digests isn't known, so nothing can be told. `missing`: there is no such model at hand.
    """

    model: str
    verdict: Verdict
    recorded: tuple[Digests, ...]
    at_hand: Digests | None


@dataclass(frozen=True, slots=True)
class ComparedComponent:
    """The models of one component; the verdict is the worst of theirs."""

    component: str
    verdict: Verdict
    models: tuple[ComparedModel, ...]


def branches_of(document: Document) -> set[str]:
    """Return the branches that a manifest names."""
    return {branch for names in document.mapping.values() for branch in names.split("+")}


def compared(document: Document, at_hand: Mapping[str, Digests | None]) -> list[ComparedComponent]:
    """Compare the models of every component.

    Args:
        document: the manifest.
        at_hand: branch -> its digests; None for a branch that is not there.
    """
    found = []
    for component, names in sorted(document.mapping.items()):
        models = tuple(_model(document, branch, at_hand.get(branch)) for branch in names.split("+") if branch)
        verdicts: set[Verdict] = {model.verdict for model in models}
        worst = next((verdict for verdict in _WORST if verdict in verdicts), _UNTOLD)
        found.append(ComparedComponent(component, worst, models))
    return found


def _model(document: Document, branch: str, there: Digests | None) -> ComparedModel:
    """Compare one branch; a video that met two versions of a model has an entry for each."""
    recorded = tuple(
        Digests(str(entry.get("weights_digest", UNKNOWN)), entry.get("preprocess_digest"))
        for entry in document.models
        if entry["model_name"] == branch
    )
    return ComparedModel(branch, _verdict(recorded, there), recorded, there)


def _verdict(recorded: tuple[Digests, ...], there: Digests | None) -> Verdict:
    if there is None:
        return "missing"
    if not recorded or any(UNKNOWN in (one.weights, one.preprocess) for one in (*recorded, there)):
        return "unknown"
    return "same" if all(one == there for one in recorded) else "differs"
