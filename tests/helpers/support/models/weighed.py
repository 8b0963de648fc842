"""A text model whose weights can be changed while it serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from app.deadline import Deadline
from app.engine.base import Lease, Weights
from app.engine.fake import Arrays, FakeEngine
from routing.catalogue import Branch, Catalogue


class WeighedText(FakeEngine):
    """With weights `n` every number that `clip_text` answers is `n`, and its digest says so.

    Args:
        catalogue: with the branch `clip_text`.
        leases: of it.
    """

    def __init__(self, catalogue: Catalogue, leases: int = 2) -> None:
        super().__init__(catalogue, {"clip_text": self._answer}, leases)
        self.calls = 0
        self.swap_after: int | None = None  # after so many calls more, in the middle of the last one
        self.swap(1)

    def swap(self, weights: float, digest: str | None = None) -> None:
        """Other weights from now on."""
        self.weights = weights
        described = Weights(digest or f"sha256:{weights:g}", "checkpoint")
        self._states = {**self._states, "clip_text": replace(self._states["clip_text"], weights=described)}

    def _answer(self, _: Arrays, outputs: Arrays) -> None:
        self.calls += 1
        outputs["OUTPUT__0"][...] = self.weights
        if self.swap_after is not None and self.calls % self.swap_after == 0:
            self.swap(self.weights + 1)

    @contextmanager
    def lease(self, branch: Branch, deadline: Deadline) -> Iterator[Lease]:
        """Lease like a real engine: the lease names the weights that are served when it begins."""
        with super().lease(branch, deadline) as lease:
            lease.model = self._states[branch.name]  # type: ignore[misc]  # a fake lease lets it be set
            yield lease
