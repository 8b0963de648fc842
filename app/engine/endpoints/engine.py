"""One engine over several Tritons: each has an engine of its own, and a run goes to the one with the least in flight.

States, transport, circuit breaker, warm-up and quarantine are each server's own. The runs of one answer have the
weights of its first (`app.context.pins`). Names are looked up again from time to time: servers come and go with them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from app import context
from app.deadline import Deadline
from app.engine.base import EndpointUsage, EngineUsage, ModelState
from app.engine.endpoints import summary
from app.engine.endpoints.lease import EndpointLease
from app.engine.endpoints.members import Endpoint, Members, ServerEngine
from app.engine.endpoints.names import Listed, Lookup, Place, addresses_of, places
from routing.catalogue import Branch, Catalogue
from routing.policy import Readiness

_log = logging.getLogger(__name__)
# Lookups in a row that must lack an address before its server is given up, if it still answers.
_LACKING = 3
_DRAIN_S = 60.0  # for runs at a server that is given up
Make = Callable[[Place], ServerEngine]


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """`leases` per branch and server; seconds between lookups of names, and between those while a server is away."""

    leases: int = 4
    lookup_s: float = 10.0
    lookup_away_s: float = 1.0


class TritonEndpoints:
    """See the module. One thread looks names up.

    Args:
        catalogue: of the branches.
        listed: the servers.
        make: makes the engine of one server, whose states have its `target` as their `endpoint`.
        options: see there.
        lookup: resolves names.
    """

    name = "triton"

    def __init__(
        self,
        catalogue: Catalogue,
        listed: Sequence[Listed],
        make: Make,
        options: EndpointOptions | None = None,
        lookup: Lookup = addresses_of,
    ) -> None:
        self._catalogue = catalogue
        self._listed = listed
        self._make = make
        self._options = options or EndpointOptions()
        self._lookup = lookup
        self._members = Members(catalogue, self._options.leases)
        self._lacking: dict[Endpoint, int] = {}
        self._leaving: list[tuple[Endpoint, float]] = []
        self._left = threading.Lock()  # a server's counters are in one of the two, never in both or none
        self._closed_usage = summary.counters_of(EngineUsage())
        self._shown: tuple[tuple[Mapping[str, ModelState], ...], Mapping[str, ModelState]] | None = None
        self._unresolved = ""
        self._closing = threading.Event()
        self._look_up()
        self._thread = threading.Thread(target=self._work, name="triton-names", daemon=True)
        if any(one.named for one in listed):
            self._thread.start()

    @property
    def transport(self) -> str | None:
        """`shared_memory` if all servers have it, `bytes` if one hasn't; None while none is known."""
        known = {one.engine.transport for one in self._members.all} - {None}
        return "bytes" if "bytes" in known else next(iter(known), None)

    def lease(self, branch: Branch, deadline: Deadline) -> EndpointLease:
        return EndpointLease(self._members, branch, deadline, self.ready()[branch.name])

    def ready(self) -> Mapping[str, ModelState]:
        views = tuple(one.engine.ready() for one in self._members.all)
        shown = self._shown
        if (
            shown is None
            or len(shown[0]) != len(views)
            or any(a is not b for a, b in zip(shown[0], views, strict=True))
        ):
            self._shown = shown = views, summary.merged(views) if views else self._nobody()
        return shown[1]

    def serving(self, name: str) -> ModelState:
        branch = self._catalogue.branches.get(name)
        if branch is None:
            return self.ready()[name]
        able = self._members.able(branch, context.pins())
        return able[0].state(name) if able else self.ready()[name]

    def endpoints(self) -> Mapping[str, Mapping[str, ModelState]]:
        return {one.place.target: one.engine.ready() for one in self._members.all}

    def usage(self) -> EngineUsage:
        with self._left:
            members, leaving = self._members.all, [one for one, _ in self._leaving]
            closed = self._closed_usage
        usages = [one.engine.usage() for one in members]
        own = {
            one.place.target: EndpointUsage(
                bool(usage.connected), one.engine.transport, one.in_flight, one.moved
            )
            for one, usage in zip(members, usages, strict=True)
        }
        gone = [summary.counters_of(one.engine.usage()) for one in leaving]
        return replace(summary.added([*usages, *gone, closed]), endpoints=own)

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._each(lambda engine: engine.close())

    def abandon(self) -> None:
        self._each(lambda engine: engine.abandon())

    def _each(self, act: Callable[[ServerEngine], None]) -> None:
        engines = [one.engine for one in (*self._members.all, *(one for one, _ in self._leaving))]
        with ThreadPoolExecutor(len(engines) or 1) as threads:
            list(threads.map(act, engines))

    def _nobody(self) -> dict[str, ModelState]:
        return {
            name: ModelState(
                name, Readiness.UNREACHABLE, self._unresolved or "no server is known", retry_after=1
            )
            for name in self._catalogue.models
        }

    def _work(self) -> None:
        while not self._closing.wait(self._pause()):
            try:
                self._look_up()
                self._close_left()
            except Exception:  # noqa: BLE001  # a defect here mustn't end the lookups
                _log.exception("the names of Tritons could not be looked up")

    def _pause(self) -> float:
        up = [one.engine.usage().connected for one in self._members.all if one.place.name is not None]
        return self._options.lookup_s if up and all(up) else self._options.lookup_away_s

    def _look_up(self) -> None:
        """Look every name up; begin with the servers that are new, and drop those that are gone."""
        found: dict[str, Place] = {}
        unresolved = set()
        for entry, listed in enumerate(self._listed):
            try:
                for place in places(entry, listed, self._lookup):
                    found.setdefault(place.target, place)
            except (OSError, UnicodeError) as error:
                unresolved.add(entry)
                self._say_unresolved(listed, error)
        known = {one.place.target for one in self._members.all}
        fresh = [place for target, place in found.items() if target not in known]
        if fresh:
            with ThreadPoolExecutor(len(fresh)) as threads:
                for endpoint in threads.map(lambda place: Endpoint(place, self._make(place)), fresh):
                    _log.info("Triton at %s serves%s", endpoint.place.target, _found_by(endpoint.place))
                    self._members.add(endpoint)
        for endpoint in self._members.all:
            gone = endpoint.place.target not in found and endpoint.place.entry not in unresolved
            self._note_gone(endpoint, gone=gone)

    def _say_unresolved(self, listed: Listed, error: Exception) -> None:
        said = f"{listed.host} doesn't resolve: {error}"
        if said != self._unresolved:
            _log.warning("%s", said)
        self._unresolved = said

    def _note_gone(self, endpoint: Endpoint, *, gone: bool) -> None:
        """Drop a server whose address its name lacks: soon if it is away too, because lookups may be partial."""
        if not gone:
            self._lacking.pop(endpoint, None)
            return
        self._lacking[endpoint] = self._lacking.get(endpoint, 0) + 1
        if self._lacking[endpoint] < _LACKING and endpoint.engine.usage().connected:
            return
        del self._lacking[endpoint]
        _log.info("Triton at %s is dropped%s", endpoint.place.target, _found_by(endpoint.place))
        with self._left:
            self._leaving.append((endpoint, time.monotonic() + _DRAIN_S))
            self._members.remove(endpoint)

    def _close_left(self) -> None:
        """Close the dropped servers that nothing runs at any more."""
        for row in list(self._leaving):
            endpoint, limit = row
            if endpoint.in_flight == 0 or time.monotonic() > limit:
                endpoint.engine.close()
                counts = summary.counters_of(endpoint.engine.usage())
                with self._left:
                    self._closed_usage = summary.added([self._closed_usage, counts])
                    self._leaving.remove(row)


def _found_by(place: Place) -> str:
    return "" if place.name is None else f" ({place.name})"
