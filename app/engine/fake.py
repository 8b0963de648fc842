"""The fake that stands beside the real engines: Python functions instead of models, the same contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from numpy.typing import NDArray

from app.deadline import Deadline
from app.engine.base import EngineUsage, Lease, LeasePool, ModelState, allocate, not_served
from routing.catalogue import Branch, Catalogue
from routing.policy import Readiness

Arrays = Mapping[str, NDArray[Any]]
Function = Callable[[Arrays, Arrays], None]


class FakeLease:
    """Plain arrays; `run` calls the function on inputs and outputs."""

    transport = "inprocess"

    def __init__(self, branch: Branch, function: Function, model: ModelState) -> None:
        self.inputs = allocate(branch.inputs)
        self.outputs = allocate(branch.outputs)
        self.workspace: dict[str, Any] = {}
        self.model = model
        self.broken = False
        self._function = function

    def run(self, deadline: Deadline) -> None:
        deadline.check("infer")
        self._function(self.inputs, self.outputs)

    def close(self) -> None:
        """Nothing to release."""


class FakeEngine:
    """Serves the branches that have a function; the others are `missing`.

    Args:
        catalogue: whose branches can be leased.
        functions: by branch name; each reads the inputs and writes every output.
        leases: sets of tensors per branch.
        max_waiting: requests that may queue for a branch.
    """

    name = "fake"
    transport = "inprocess"

    def __init__(
        self, catalogue: Catalogue, functions: Mapping[str, Function], leases: int = 2, max_waiting: int = 64
    ) -> None:
        self._states = {
            name: ModelState(
                name,
                Readiness.READY if name in functions else Readiness.MISSING,
                None if name in functions else "the fake has no function for it",
                device="cpu",
                runtime="inprocess",
            )
            for name in catalogue.models
        }
        self._pools = {
            name: LeasePool(self._maker(catalogue.branches[name], function), leases, max_waiting)
            for name, function in functions.items()
        }

    def _maker(self, branch: Branch, function: Function) -> Callable[[], FakeLease]:
        return lambda: FakeLease(branch, function, self._states[branch.name])

    def ready(self) -> Mapping[str, ModelState]:
        return self._states

    def serving(self, name: str) -> ModelState:
        return self.ready()[name]

    def endpoints(self) -> Mapping[str, Mapping[str, ModelState]]:
        return {}

    def lease(self, branch: Branch, deadline: Deadline) -> AbstractContextManager[Lease]:
        if branch.name not in self._pools:
            raise not_served(self._states[branch.name])
        return self._pools[branch.name].lease(deadline)

    def usage(self) -> EngineUsage:
        return EngineUsage({name: pool.usage() for name, pool in self._pools.items()})

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def abandon(self) -> None:
        """Nothing outlives this process."""
