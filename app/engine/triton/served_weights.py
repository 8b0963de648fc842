"""The weights that a server has loaded, as far as they can be known from outside it.

Triton reports no digests, so the files that exist when a load is observed count as the loaded ones. If they change
later, the weights are unknown until the server loads the model again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from app.engine.base import Weights
from app.engine.weights_files import Stamp, WeightsFiles


class ServedWeights:
    """The files of each model as of its last load."""

    def __init__(self, files: WeightsFiles) -> None:
        self._files = files
        self._pins: dict[str, tuple[str, Stamp]] = {}
        self._since: dict[str, float] = {}

    def of(self, model: str, version: str) -> Weights:
        """Return the weights that the server has loaded; all `unknown` if the files have changed since. Never
        blocks."""
        facts = self._files.of(model, version, self._since.get(model, 0.0))
        if facts is None:
            return Weights()
        pin = self._pins.get(model)
        if pin is None or pin[0] != version or not pin[1]:
            self._pins[model] = pin = (version, facts.stamp)
        return facts.weights if facts.stamp == pin[1] else Weights()

    def forget(self, models: Iterable[str]) -> None:
        """These models aren't loaded any more, or have been loaded again."""
        for name in models:
            self._pins.pop(name, None)
            self._since[name] = time.monotonic()

    def forget_all(self) -> None:
        """Forget all models, because the server has ended."""
        self.forget([*self._pins])
