"""An engine that reports which models there are and runs none."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from app.deadline import Deadline
from app.engine.base import EngineUsage, Lease, ModelState, not_served
from routing.catalogue import Branch


class ReportEngine:
    """Base of engines that can only be asked for states; every lease is refused with the branch's state.

    Args:
        states: the state of each model, by its name.
    """

    transport = "inprocess"

    def __init__(self, states: Mapping[str, ModelState]) -> None:
        self._states = states

    def ready(self) -> Mapping[str, ModelState]:
        return self._states

    def serving(self, name: str) -> ModelState:
        return self.ready()[name]

    def endpoints(self) -> Mapping[str, Mapping[str, ModelState]]:
        return {}

    def lease(self, branch: Branch, deadline: Deadline) -> AbstractContextManager[Lease]:
        del deadline
        raise not_served(self._states[branch.name])

    def usage(self) -> EngineUsage:
        return EngineUsage({})

    def close(self) -> None:
        """Nothing to release."""

    def abandon(self) -> None:
        """Nothing outlives this process."""
