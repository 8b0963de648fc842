"""A frame to scene categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.media.resize import Fit
from app.pipelines.base import Framed, Served
from app.pipelines.dense import Analysis, DensePipeline
from app.vision.embeddings import softmax, top_k
from routing.policy import Wishes


@dataclass(frozen=True, slots=True)
class Scenes:
    """`probabilities` `[categories]` float32, summing to 1, in the order of `labels`."""

    probabilities: NDArray[np.float32]
    labels: Sequence[str]
    width: int
    height: int
    served: Served

    def best(self, k: int) -> list[tuple[int, str, float]]:
        """The `k` most probable: index, name, probability."""
        indices = top_k(self.probabilities, k)
        return [(int(i), self._name(int(i)), float(self.probabilities[i])) for i in indices]

    def _name(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else f"category {index}"


@dataclass(frozen=True, slots=True)
class PlacesPipeline(DensePipeline):
    """See the module; safe to call from many threads."""

    family: ClassVar[str] = "places"

    def __call__(
        self,
        data: bytes,
        wishes: Wishes,
        deadline: Deadline,
        fit: Fit | None = None,
        analysis: Analysis = (None, None),
    ) -> Scenes:
        """Scene of one encoded picture.

        Raises:
            GatewayError: see `decode_image`, `Router.decide`, `Engine.lease` and `Lease.run`.
        """
        logits, (width, height), served = self.run_picture(data, wishes, deadline, analysis, fit)
        return self._finish(logits, width, height, served)

    def on_frame(self, rgb: NDArray[np.uint8], framed: Framed, fit: Fit | None = None) -> Scenes:
        """Scene of one decoded frame `[height, width, 3]` uint8 RGB."""
        logits, served = self.run_frames([rgb], framed, fit)
        return self._finish(logits, framed.facts.width, framed.facts.height, served)

    def _finish(self, logits: NDArray[np.float32], width: int, height: int, served: Served) -> Scenes:
        with served.timings.stage("finish"):
            probabilities = softmax(logits)
        self.observe(served)
        labels = served.model.weights.labels or served.decision.branch.labels
        return Scenes(probabilities, labels, width, height, served)
