"""Which weights a server has loaded, as far as that can be known from outside it.

Triton names no digest: what the exporter wrote down beside the files (or in the manifest) is believed for what was
loaded while it stood there. Files may change while the server goes on with what it has, and a model that is loaded anew
under the same version never leaves READY; but its counters begin again at zero, and that is seen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from app.engine.base import Weights
from app.engine.weights import WeightsBook
from routing.provenance import UNKNOWN

_log = logging.getLogger(__name__)
Counters = tuple[int, int]


class ServedWeights:
    """What `book` said of each model when the server was seen to load it."""

    def __init__(self, book: WeightsBook) -> None:
        self._book = book
        self._at_load: dict[str, Weights] = {}
        self._counters: Mapping[str, Counters] = {}
        self._versions: Mapping[str, str] = {}

    def of(self, model: str) -> Weights:
        """What the server has loaded; all `unknown` once another digest is written down than at that time."""
        now = self._book.lookup(model, self._versions.get(model, "1"))
        then = self._at_load.setdefault(model, now)
        if then.digest == UNKNOWN:  # first knowledge
            self._at_load[model] = now
            return now
        return now if now.digest == then.digest else Weights()

    def reloaded(self, counters: Mapping[str, Counters], versions: Mapping[str, str]) -> list[str]:
        """The models that the server has loaded anew since the last call; their weights are taken from the book again.

        Args:
            counters: by model, inferences and the time of the last one, as the server counts them.
            versions: by model, the one that serves.
        """
        before, self._counters = self._counters, counters
        old, self._versions = self._versions, versions
        found = [
            name
            for name, (count, last) in counters.items()
            if name in before
            and (count < before[name][0] or last < before[name][1] or versions.get(name) != old.get(name))
        ]
        for name in found:
            _log.info("%s: Triton has loaded it anew", name)
        self.forget(found)
        return found

    def forget(self, models: Iterable[str]) -> None:
        """They aren't loaded any more, or are loaded anew."""
        for name in models:
            self._at_load.pop(name, None)

    def forget_all(self) -> None:
        """The server is away."""
        self._at_load.clear()
        self._counters = {}
