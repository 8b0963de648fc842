"""The answer of `/readyz`: may this gateway get requests?"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence

from app.engine.base import ModelState
from app.pipelines.base import Router
from app.pipelines.inventory import required_branches
from routing.policy import Readiness

Fault = dict[str, str]
_AWAY = (Readiness.UNREACHABLE, Readiness.SEVERAL_SERVERS)  # no model can be asked anything


class ReadyProbe:
    """Says what keeps the service from being ready.

    Always: a branch that is required and not READY, and a server that is away. Until the probe has been green once, it
    also waits until some branch is READY and, where nothing is required, until this process has loaded the usual
    branches and run each once. It doesn't wait for a first run that takes longer than a few seconds, nor for a model
    that the server itself is loading. Once it has been green, no optional model makes it red.

    Args:
        router: whose engine is asked.
        required: shell patterns of branches that must be READY; `checklist` stands for the required ones of the
            READY checklist.
        usual: names of the branches that requests reach without naming one.
    """

    def __init__(self, router: Router, required: Sequence[str], usual: Collection[str] = ()) -> None:
        self._router = router
        catalogue = router.catalogue
        self.required = frozenset(required_branches(catalogue, required))
        self._unknown = [
            _fault(pattern, Readiness.MISSING, "no branch of the catalogue has this name")
            for pattern in required
            if pattern != "checklist" and not fnmatch.filter(catalogue.branches, pattern)
        ]
        self._names = tuple(catalogue.branches)
        self._usual = frozenset(usual)
        self._was_green = False

    def faults(self) -> list[Fault]:
        """Reasons why the service is not ready; empty: it is ready."""
        states = self._router.engine.ready()
        found = self._required_faults(states) or self._away(states)
        if not found and not self._was_green:
            found = self._first_faults(states)
        self._was_green = self._was_green or not found
        return found

    def _required_faults(self, states: Mapping[str, ModelState]) -> list[Fault]:
        found = [_of_state(states[name]) for name in self._names if name in self.required]
        return [fault for fault in found if fault["readiness"] != Readiness.READY] + self._unknown

    def _away(self, states: Mapping[str, ModelState]) -> list[Fault]:
        first = states[self._names[0]]
        if any(states[name].readiness not in _AWAY for name in self._names):
            return []
        return [_fault(self._router.engine.name, first.readiness, first.reason)]

    def _first_faults(self, states: Mapping[str, ModelState]) -> list[Fault]:
        if not self.required:
            awaited = [states[name] for name in self._names if name in self._usual]
            found = [_of_state(s) for s in awaited if s.readiness is Readiness.LOADING and s.settling]
            if found:
                return found
        if any(states[name].ready for name in self._names):
            return []
        loading = [_of_state(states[n]) for n in self._names if states[n].readiness is Readiness.LOADING]
        words = "no branch is ready; `make models` or `gateway up` builds some"
        first = states[self._names[0]].readiness
        return loading or [_fault(self._router.engine.name, first, words)]


def _of_state(state: ModelState) -> Fault:
    return _fault(state.name, state.readiness, state.reason)


def _fault(name: str, readiness: Readiness, reason: str | None) -> Fault:
    return {"name": name, "readiness": readiness.value, "reason": reason or ""}
