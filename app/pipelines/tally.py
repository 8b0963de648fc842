"""Totals of the models and stages that served many frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.engine.base import ModelState
from app.pipelines.base import Served, Timings
from routing import provenance
from routing.catalogue import Family
from routing.policy import Decision
from routing.provenance import ModelUsed, ResizedBy


@dataclass(slots=True)
class Tally:
    """Models that served many frames, and the total time of each stage. Not safe to share between threads."""

    timings: Timings = field(default_factory=Timings)
    warnings: set[str] = field(default_factory=set)
    degraded: bool = False
    used: list[provenance.Entry] = field(default_factory=list)
    chosen: set[tuple[str, str]] = field(default_factory=set)  # component, branch
    _latest: tuple[ModelState, ResizedBy | None] | None = None

    def add(self, served: Served) -> None:
        """Count one answer."""
        self.timings.add(served.timings)
        latest = self._latest  # a model's state is one object until the engine looks again
        if latest is None or served.model is not latest[0] or served.resized != latest[1]:
            self.expect(served.family, served.decision, served.used)
            self.warnings.update(served.warnings)
            self._latest = served.model, served.resized

    def expect(self, family: Family, decision: Decision, used: ModelUsed) -> None:
        """Count a model that will answer."""
        self.degraded = self.degraded or decision.degraded
        self.warnings.update(decision.warnings)
        self.used = provenance.merged([self.used, [used.to_dict()]])
        self.chosen.add((family.component, decision.branch.name))

    def merge(self, other: Tally) -> None:
        """Count all that `other` has counted."""
        self.timings.add(other.timings)
        self.warnings |= other.warnings
        self.degraded = self.degraded or other.degraded
        self.used = provenance.merged([self.used, other.used])
        self.chosen |= other.chosen

    def provenance(self) -> dict[str, Any]:
        """`resolved_model_mapping`, `models_used`, `model_signature`."""
        return {
            "resolved_model_mapping": provenance.resolved_model_mapping(self.chosen),
            "models_used": self.used,
            "model_signature": provenance.model_signature(self.used),
        }

    def summary(self) -> dict[str, Any]:
        """Provenance, `degraded`, `warnings` and `stage_timings_ms` (sums)."""
        return {
            **self.provenance(),
            "degraded": self.degraded,
            "warnings": sorted(self.warnings),
            "stage_timings_ms": rounded(self.timings.ms),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the form that `restored` reads."""
        return {
            "ms": self.timings.ms, "warnings": sorted(self.warnings), "degraded": self.degraded,
            "used": self.used, "chosen": sorted(self.chosen),
        }  # fmt: skip

    @classmethod
    def restored(cls, document: Mapping[str, Any]) -> Tally:
        """From `to_dict`."""
        tally = cls(
            Timings(), set(document["warnings"]), document["degraded"], document["used"],
            {(component, branch) for component, branch in document["chosen"]},
        )  # fmt: skip
        tally.timings.ms.update(document["ms"])
        return tally


def merged(tallies: Iterable[Tally]) -> Tally:
    """One tally of all."""
    whole = Tally()
    for tally in tallies:
        whole.merge(tally)
    return whole


def rounded(ms: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds to the microsecond."""
    return {stage: round(value, 3) for stage, value in ms.items()}
