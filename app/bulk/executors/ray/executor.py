"""Executor on a Ray cluster: one actor per worker, on whichever nodes have room; entries travel, frames never do.

The driver retries entries itself (`max_task_retries=0`): Ray would repeat a call without telling, but deaths of workers
have to be counted. Ray restarts actors (`max_restarts`), elsewhere if their node is gone. More actors than fit are
requested, so that an autoscaler sees the demand; they begin as nodes come.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray import cloudpickle

from app import __version__
from app.bulk.attempts import Attempts
from app.bulk.entries import Entry
from app.bulk.executors.base import MakeWorker, Stopped, set_aside
from app.bulk.executors.ray import node
from app.bulk.executors.ray.cluster import Needs, Unusable, connect, is_alive, offered, room, summary
from app.bulk.executors.ray.work import Stragglers, Task, Work
from app.bulk.outcomes import Outcome, unread

_log = logging.getLogger(__name__)

_MOST_ATTEMPTS = 5  # at a video whose nodes are taken away
_RESTARTS = 3  # of one actor; one that dies as often while it starts never works
_TICK_S = 0.5  # between two looks at the nodes, stragglers and a request to stop, if nothing else happens
_NODES_S = 5.0
_NO_ROOM_S = 30.0  # until a person is told that nothing runs
_GOODBYE_S = 10.0


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Options of a run on Ray; `workers` limits all workers together, by default as many run as there is room for."""

    address: str | None = None
    workers: int | None = None
    needs: Needs = field(default_factory=Needs)
    stragglers: Stragglers = field(default_factory=Stragglers)


@dataclass(slots=True, eq=False)
class _Slot:
    """One actor. `call` is what it does now; it starts if there is no task."""

    actor: Any
    call: Any = None
    begun: float = 0.0
    task: Task | None = None
    attempt: int = 0
    name: str | None = None  # of the worker; None until it has started
    node: str = ""  # Ray's id of it


class RayExecutor:
    """See `Executor`: over the actors of a Ray cluster; close it at the end."""

    def __init__(self, options: RayOptions, cpus: int) -> None:
        """Connect to the cluster.

        Args:
            options: where, and how many.
            cpus: of this machine, for a cluster that is started here because none is given.

        Raises:
            Unusable: there is no cluster.
        """
        self._own = connect(options.address, cpus, options.needs)
        self._stragglers, self._most = options.stragglers, options.workers
        self._needs = (
            replace(options.needs, cpus=min(options.needs.cpus, cpus)) if self._own else options.needs
        )
        self._slots: list[_Slot] = []
        self._stopped = self._told = False
        self._left_out = 0  # workers on nodes that can't work
        self._fitting, self._counted = 0, float("-inf")
        self._warned = False

    def stop(self) -> None:
        """See `Executor.stop`."""
        self._stopped = True

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        ray.shutdown()

    def run(self, entries: Iterable[Entry], make: MakeWorker, attempts: Attempts) -> Iterator[Outcome]:
        """See `Executor.run`.

        Raises:
            Unusable: no node can work.
        """
        cloudpickle.register_pickle_by_value(node)
        made_of, work = cloudpickle.dumps(make), Work(entries, self._stragglers)
        started = time.monotonic()
        try:
            while not self._over(work):
                if not self._stopped:
                    self._request(made_of, work)
                    self._hand_out(work, attempts)
                for slot in self._ended():
                    outcome = self._answered(slot, work, attempts)
                    if outcome is not None:
                        yield outcome
                self._tell_no_room(started)
        finally:
            self._dismiss()

    def _over(self, work: Work) -> bool:
        busy = [slot for slot in self._slots if slot.task is not None]
        if self._stopped:
            if not self._told:
                self._told = True
                for slot in busy:
                    slot.actor.stop.remote()
            return not busy
        if not busy and not work.waiting:
            work.fetch()
        return work.over

    def _request(self, made_of: bytes, work: Work) -> None:
        """Request actors while there are entries for them."""
        starting = sum(slot.name is None for slot in self._slots)
        wanted = self._wanted()
        while len(self._slots) < wanted and (work.waiting > starting or work.fetch()):
            slot = _Slot(self._actor(made_of))
            self._prepare(slot)
            self._slots.append(slot)
            starting += 1

    def _wanted(self) -> int:
        """Return how many actors are requested: twice what the nodes hold, so that a cluster that can grow does."""
        now = time.monotonic()
        if now - self._counted >= _NODES_S:
            self._counted, self._fitting = now, room(self._needs)
        most = self._fitting if self._own else 2 * self._fitting
        most = most if self._most is None else min(most, self._most)
        return max(1, most - self._left_out)

    def _actor(self, made_of: bytes) -> Any:
        return (
            ray.remote(node.NodeWorker)
            .options(
                max_restarts=_RESTARTS,
                max_task_retries=0,
                max_concurrency=2,  # `stop` runs beside `analyse`
                scheduling_strategy="SPREAD",
                num_cpus=self._needs.num_cpus,
                resources=self._needs.custom,
            )
            .remote(made_of)
        )

    def _prepare(self, slot: _Slot) -> None:
        """Have the actor say when it can work; Ray repeats this call after a restart."""
        slot.call = slot.actor.ready.options(max_task_retries=_RESTARTS).remote(__version__)
        slot.task = None

    def _hand_out(self, work: Work, attempts: Attempts) -> None:
        for slot in self._slots:
            if slot.call is None:
                slot.begun = time.monotonic()
                slot.task = work.take(slot.begun)
                if slot.task is None:
                    return
                slot.attempt = attempts.begin(slot.task.entry.name)
                slot.call = slot.actor.analyse.remote(slot.task.entry, slot.attempt)

    def _ended(self) -> list[_Slot]:
        """Return the slots whose calls are over; wait at most a tick for the first one."""
        calls = {slot.call: slot for slot in self._slots if slot.call is not None}
        if not calls:
            time.sleep(_TICK_S)
            return []
        over, _ = ray.wait(list(calls), timeout=_TICK_S)
        return [calls[call] for call in over]

    def _answered(self, slot: _Slot, work: Work, attempts: Attempts) -> Outcome | None:
        """Take the answer of a slot's call, and return the outcome if there is one that counts."""
        call, slot.call = slot.call, None
        task, slot.task = slot.task, None
        if task is None:
            self._started(slot, call)
            return None
        try:
            outcome: Outcome = ray.get(call)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, Stopped):
                return None
            if isinstance(error.cause, RuntimeError):
                raise Unusable(str(error.cause)) from None
            reason = f"{type(error.cause).__name__} in {slot.name}"
            outcome = unread(task.entry, "failed", "internal_error", reason, slot.attempt)
        except ray.exceptions.RayError as error:
            return self._died(slot, task, error, work, attempts)
        return work.finished(task, outcome, slot.begun, time.monotonic())

    def _died(
        self, slot: _Slot, task: Task, error: Exception, work: Work, attempts: Attempts
    ) -> Outcome | None:
        name, ended = task.entry.name, f"{slot.name}: {summary(error)}"
        if not task.settled:
            _log.warning("%s: the worker died (%s), attempt %d", name, ended, slot.attempt)
        self._prepare(slot)
        blamed = is_alive(slot.node)  # otherwise the node was taken away, and the video has no part in it
        fatal = not task.settled and (attempts.killed(name) if blamed else slot.attempt >= _MOST_ATTEMPTS)
        given_up = work.died(task, slot.begun, fatal=fatal)
        return set_aside(task.entry, slot.attempt, ended) if given_up else None

    def _started(self, slot: _Slot, call: Any) -> None:
        """Note a worker that can work, or give up one that can't.

        Raises:
            Unusable: and there is no other one.
        """
        try:
            answer = ray.get(call)
            host, fault = answer["host"], answer["fault"]
        except ray.exceptions.ActorUnavailableError:
            time.sleep(_TICK_S)
            self._prepare(slot)
            return
        except ray.exceptions.RayError as error:
            if slot.name is not None:  # it has worked, and was restarted as often as allowed
                self._remove(slot)
                return
            host, fault = "a node", f"can't keep a worker: {summary(error)}"
        if fault is None:
            slot.name, slot.node = answer["name"], answer["node"]
            return
        self._remove(slot)
        self._left_out += 1
        if not any(other.name for other in self._slots):
            raise Unusable(f"{host} of the Ray cluster {fault}")
        _log.warning("%s of the Ray cluster %s; it is left out", host, fault)

    def _remove(self, slot: _Slot) -> None:
        ray.kill(slot.actor)
        self._slots.remove(slot)

    def _tell_no_room(self, started: float) -> None:
        if self._warned or any(slot.name for slot in self._slots) or time.monotonic() - started < _NO_ROOM_S:
            return
        self._warned = True
        text = "no node of the Ray cluster has room for a worker yet: one needs %s, the cluster has %s"
        _log.warning(text, self._needs, offered())

    def _dismiss(self) -> None:
        """End the actors: idle ones close what they hold, the others are killed."""
        goodbyes = [slot.actor.close.remote() for slot in self._slots if slot.call is None]
        if goodbyes:
            ray.wait(goodbyes, num_returns=len(goodbyes), timeout=_GOODBYE_S)
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots.clear()
