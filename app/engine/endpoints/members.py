"""The servers that there are now, what each has in flight, and which of them takes the next run."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from app.context import Pins
from app.deadline import Deadline
from app.engine.base import EngineUsage, Lease, ModelState
from app.engine.endpoints.names import Place
from routing.catalogue import Branch, Catalogue

# Families whose outputs are compared with each other: both are of one server's weights, or of equal ones.
_COMPARED = frozenset({"clip_image", "clip_text"})


class OnceLease(Lease, Protocol):
    """A lease whose run can leave retries to its caller."""

    def run_once(self, deadline: Deadline) -> None:
        """`run`, sent once."""


class ServerEngine(Protocol):
    """An engine over one server; see `app.engine.base.Engine`."""

    @property
    def name(self) -> str: ...
    @property
    def transport(self) -> str | None: ...
    def lease(self, branch: Branch, deadline: Deadline) -> AbstractContextManager[OnceLease]: ...
    def ready(self) -> Mapping[str, ModelState]: ...
    def usage(self) -> EngineUsage: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


class Endpoint:
    """One server and the leases that are out or awaited there, in all and by branch."""

    def __init__(self, place: Place, engine: ServerEngine) -> None:
        self.place = place
        self.engine = engine
        self.in_flight = 0
        self.by_branch: Counter[str] = Counter()
        self.moved = 0  # runs that it didn't answer and another server was asked to

    def state(self, branch: str) -> ModelState:
        return self.engine.ready()[branch]


class Members:
    """See the module; safe to use from many threads.

    Args:
        catalogue: of the branches.
        leases: sets of tensors per branch and server; more runs than these wait there.
    """

    def __init__(self, catalogue: Catalogue, leases: int) -> None:
        self._catalogue = catalogue
        self._leases = leases
        self._lock = threading.Lock()
        self._turn = 0
        self.all: tuple[Endpoint, ...] = ()

    def add(self, endpoint: Endpoint) -> None:
        """Let a server take runs; the servers stay in the order of the list and of their addresses."""
        with self._lock:
            by_place = lambda one: (one.place.entry, one.place.target)  # noqa: E731  # used once
            self.all = tuple(sorted((*self.all, endpoint), key=by_place))

    def remove(self, endpoint: Endpoint) -> None:
        """Give a server no more runs; those in flight there go on."""
        with self._lock:
            self.all = tuple(one for one in self.all if one is not endpoint)

    def take(self, branch: Branch, pins: Pins | None, without: Collection[Endpoint]) -> Endpoint | None:
        """Return the server for the next run, which `give_back` ends; None: none can.

        It has the branch READY with the weights that are pinned, and a free set of tensors rather than none; of
        several, that with the least in flight, and of equal ones each in turn.
        """
        able = self.able(branch, pins, without)
        if not able:
            return None
        with self._lock:
            self._turn += 1
            first = self._turn
            chosen = min(
                enumerate(able),
                key=lambda row: (
                    row[1].by_branch[branch.name] >= self._leases,
                    row[1].in_flight,
                    (row[0] + first) % len(able),
                ),
            )[1]
            chosen.in_flight += 1
            chosen.by_branch[branch.name] += 1
        if pins is not None:
            pins.expect(branch.name, chosen.state(branch.name).weights_key)
        return chosen

    def give_back(self, endpoint: Endpoint, branch: Branch) -> None:
        with self._lock:
            endpoint.in_flight -= 1
            endpoint.by_branch[branch.name] -= 1

    def able(self, branch: Branch, pins: Pins | None, without: Collection[Endpoint] = ()) -> list[Endpoint]:
        """The servers that may run the branch for an answer."""
        ready = [one for one in self.all if one not in without and one.state(branch.name).ready]
        if pins is None or len(self.all) < 2:
            return ready
        pin = pins.get(branch.name)
        if pin is None and pins.steady and ready:
            first = ready[0].state(branch.name).weights_key
            ready = [one for one in ready if one.state(branch.name).weights_key == first]
        if pin is not None:
            same = [one for one in ready if one.state(branch.name).weights_key == pin[0]]
            ready = same if same or pin[1] else ready
        others = [(name, key) for name, key in pins.items() if name != branch.name]
        if not others:
            return ready
        fitting = [one for one in ready if not _differs(one, others)]
        if fitting:
            return fitting
        compared = [row for row in others if self._compared(branch, row[0])]
        return [one for one in ready if not _differs(one, compared)]

    def _compared(self, branch: Branch, other: str) -> bool:
        families = {branch.family, self._catalogue.branches[other].family}
        return families == _COMPARED


def _differs(endpoint: Endpoint, pinned: list[tuple[str, Hashable]]) -> bool:
    """Return True if the server has one of these branches READY with other weights."""
    states = endpoint.engine.ready()
    return any(states[name].ready and states[name].weights_key != key for name, key in pinned)
