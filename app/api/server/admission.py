"""Admission control: one bounded queue per family. A flood of one family starves no other; a full queue refuses at
once.

Every request is worked on by threads; how many of a family's run at a time is limited, and what waits is counted in
items and in bytes. Requests of one family take turns item by item, so that a batch of a thousand doesn't hold up the
single frame behind it.
"""

from __future__ import annotations

import asyncio
import contextvars
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from app.api.server.memory_budget import MemoryBudget
from app.api.server.threads import Threads
from app.context import begin
from app.deadline import Deadline
from app.errors import DeadlineExceeded, Overloaded

T = TypeVar("T")
# Weight of the newest service time in the moving mean that Retry-After is computed from.
_NEWEST = 0.2
Call = Callable[[Deadline], T]


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Limits of one family: `running` items at once, `waiting` in the queue, `nbytes` of bodies in memory for all
    of them.
    """

    running: int
    waiting: int
    nbytes: int


class _Gate:
    """One family's queue. Lives on the event loop: no lock."""

    def __init__(self, family: str, limits: AdmissionLimits) -> None:
        self._family = family
        self._limits = limits
        self._turns: OrderedDict[object, deque[asyncio.Future[None]]] = OrderedDict()
        self.running = 0
        self.waiting = 0
        self.nbytes = 0
        self._service_s = 0.05

    def check(self, items: int, nbytes: int) -> None:
        """Raise Overloaded unless so much more fits; an item larger than the whole queue fits while there is a free
        place.

        Raises:
            Overloaded: the queue is full.
        """
        limits, here = self._limits, self.running + self.waiting
        full = here + items > limits.running + limits.waiting
        if here >= limits.running and (full or self.nbytes + nbytes > limits.nbytes):
            raise Overloaded(
                f"{self.waiting} {self._family} items wait for {limits.running} places",
                retry_after=(self.waiting + 1) * self._service_s / limits.running,
            )

    def join(self, items: int, nbytes: int) -> None:
        """Count a request's items as waiting and its bytes as held, if `check` allows so much more.

        Raises:
            Overloaded: the queue is full.
        """
        self.check(items, nbytes)
        self.waiting += items
        self.nbytes += nbytes

    def enter_at_once(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self.running >= self._limits.running or self._turns:
            return False
        self.running += 1
        return True

    async def enter(self, request: object, deadline: Deadline) -> None:
        """Wait for a place; requests take turns.

        Raises:
            DeadlineExceeded: none came free in time (stage `queue`).
        """
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.setdefault(request, deque()).append(place)
        try:
            async with asyncio.timeout(deadline.remaining()):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self.give_back()  # it was given a place, and doesn't take it
            else:
                self._leave(request, place)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded("queue") from error
            raise

    def leave(self, seconds: float) -> None:
        """Release a place after so many seconds of work."""
        self._service_s += _NEWEST * (seconds - self._service_s)
        self.give_back()

    def give_back(self) -> None:
        """Give the place to the request whose turn it is."""
        while self._turns:
            request, places = self._turns.popitem(last=False)
            place = places.popleft()
            if places:
                self._turns[request] = places
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1

    def _leave(self, request: object, place: asyncio.Future[None]) -> None:
        places = self._turns.get(request)
        if places is not None and place in places:
            places.remove(place)
            if not places:
                del self._turns[request]


def _without_locals(error: BaseException | None) -> None:
    """Drop the local variables of a failed call's frames; otherwise its pixels live as long as the exception."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


class Admission:
    """See the module; used on one event loop.

    Args:
        families: names, each with a queue of its own.
        limits: of each.
        threads: carry the calls out; as many as all families together may run.
        memory: that decoded pictures of all families share.
    """

    def __init__(
        self,
        families: Iterable[str],
        limits: AdmissionLimits,
        threads: Threads,
        memory: MemoryBudget,
    ) -> None:
        self._gates = {family: _Gate(family, limits) for family in families}
        self._threads = threads
        self._memory = memory

    def check(self, family: str) -> None:
        """Refuse before the body is read, if it would be refused afterwards in any case.

        Raises:
            Overloaded: the family's queue is full.
        """
        self._gates[family].check(1, 0)

    def occupancy(self) -> dict[str, tuple[int, int, int]]:
        """By family: items that run, items that wait, bytes of their bodies."""
        return {name: (gate.running, gate.waiting, gate.nbytes) for name, gate in self._gates.items()}

    async def run(
        self, family: str, call: Call[T], deadline: Deadline, nbytes: int = 0, memory: int = 0
    ) -> T:
        """Run one call on a worker thread once a place is free.

        Args:
            family: whose queue.
            call: is given the deadline that it lives on; it ends with `deadline`, and knows how long it queued.
            deadline: of the request.
            nbytes: of the body that is in memory meanwhile.
            memory: bytes that the decoded picture will take; a large one waits until there is room for it.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: no place came free in time (stage `queue`).
        """
        gate = self._gates[family]
        gate.join(1, nbytes)
        try:
            return await self._one(gate, object(), call, deadline, memory)
        finally:
            gate.nbytes -= nbytes

    async def run_all(
        self,
        family: str,
        calls: Sequence[Call[T]],
        deadline: Deadline,
        nbytes: int = 0,
        memory: Sequence[int] = (),
        *,
        whole: bool = False,
    ) -> list[T | BaseException]:
        """Carry out the calls of one request side by side; each has its result, or its exception, in its place.

        `memory`: of each call, or none; see `run`.
        `whole`: the first exception is raised instead, and ends those that wait.

        Raises:
            Overloaded: the queue is full; none is carried out.
        """
        gate = self._gates[family]
        gate.join(len(calls), nbytes)
        request = object()
        each = zip(calls, memory or (0,) * len(calls), strict=True)
        tasks = [asyncio.ensure_future(self._one(gate, request, call, deadline, need)) for call, need in each]
        try:
            return await asyncio.gather(*tasks, return_exceptions=not whole)
        finally:
            for task in tasks:
                task.cancel()
            gate.nbytes -= nbytes

    async def _enter(self, gate: _Gate, request: object, deadline: Deadline, memory: int) -> None:
        """Wait for a place, then for memory."""
        end_span = begin("admission")
        try:
            if not gate.enter_at_once():
                await gate.enter(request, deadline)
            if memory:
                await self._take_memory(gate, deadline, memory)
        finally:
            gate.waiting -= 1
            if end_span is not None:
                end_span()

    async def _take_memory(self, gate: _Gate, deadline: Deadline, memory: int) -> None:
        try:
            await self._memory.take(memory, deadline)
        except BaseException:
            gate.give_back()
            raise

    async def _one(self, gate: _Gate, request: object, call: Call[T], deadline: Deadline, memory: int) -> T:
        loop = asyncio.get_running_loop()
        came = loop.time()
        if memory < self._memory.least:  # the places of the families bound small pictures
            memory = 0
        await self._enter(gate, request, deadline, memory)
        began = loop.time()
        mine = deadline.part()
        mine.queued_s = began - came
        outcome: asyncio.Future[T] = loop.create_future()

        def ended(result: T | None, error: BaseException | None) -> None:
            # A thread can't be interrupted: its place is free when it has ended, not when nobody waits any more.
            gate.leave(loop.time() - began)
            if memory:
                self._memory.release(memory)
            if outcome.done():
                return
            if error is None:
                outcome.set_result(result)  # type: ignore[arg-type]  # there is one where there is no error
            else:
                outcome.set_exception(error)

        context = contextvars.copy_context()

        def carry_out() -> None:
            # Straight back to the loop: `run_in_executor` chains two more futures between.
            try:
                result = context.run(call, mine)
            except BaseException as error:  # noqa: BLE001  # it is raised on the loop
                _without_locals(error)
                loop.call_soon_threadsafe(ended, None, error)
            else:
                loop.call_soon_threadsafe(ended, result, None)

        self._threads.submit(carry_out)
        try:
            return await outcome
        except asyncio.CancelledError:
            mine.cancel()
            raise
