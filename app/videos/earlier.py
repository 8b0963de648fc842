"""An earlier run over the same video: which of its artefacts the models at hand would make again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app import __version__
from app.pipelines.tally import Tally


@dataclass(frozen=True, slots=True)
class Earlier:
    """A finished run of the same input and configuration, whose files are all there.

    `whole`: the models are the same, too, so that nothing has to be done.
    """

    manifest: dict[str, Any]
    whole: bool

    def kept(self, expected: Mapping[str, Tally]) -> dict[str, dict[str, Any]]:
        """Return the rows of the artefacts that stay, by component, and complete their tallies in `expected`.

        They are none if the video broke off, since another run may decode more of it, or if another version of this
        program made them, or one that did not note the models of each artefact.
        """
        if self.manifest.get("status") != "ok" or self.manifest.get("producer_version") != __version__:
            return {}
        rows = {row.get("component"): row for row in self.manifest["artifacts"]}
        same = {
            name: dict(rows[name])
            for name, tally in expected.items()
            if name in rows and rows[name].get("model_signature") == tally.provenance()["model_signature"]
        }
        if len(same) == len(expected):  # the files said that a model had changed, and the engine does not
            return {}
        for name, row in same.items():
            expected[name].warnings.update(row["warnings"])
            expected[name].timings.ms.update(self.manifest["stage_timings_ms"][name])
        return same

    def fits(self, frames: int) -> bool:
        """Return True if a run has as many frames as this one, so that its artefacts line up with the others."""
        return bool(self.manifest["frames"]["sampled"] == frames)
