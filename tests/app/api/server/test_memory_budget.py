"""Memory of large pictures: bounded, first come first served, and given back whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.waiting import PATIENCE_S

from app.api.server import memory_budget
from app.api.server.admission import Admission, AdmissionLimits
from app.api.server.memory_budget import MemoryBudget
from app.api.server.threads import Threads
from app.deadline import Deadline
from app.errors import DeadlineExceeded, InvalidImage

MIB = 1 << 20
LIMIT = 64 * MIB


def use(test: Callable[[Admission, MemoryBudget], Awaitable[Any]], running: int = 8) -> Any:
    """Run a test on a loop of its own; in the end nothing is used."""

    async def main() -> Any:
        memory = MemoryBudget(LIMIT)
        with contextlib.closing(Threads(8, "test")) as workers:
            limits = AdmissionLimits(running, 64, 1 << 30)
            result = await test(Admission(("detect", "depth"), limits, workers, memory), memory)
        await asyncio.sleep(0)
        assert memory.used == 0
        return result

    return asyncio.run(main())


class Work:
    """A call that runs until it is let go; the most bytes that ran at once, if each took `nbytes`."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.go = threading.Event()
        self.began = threading.Semaphore(0)
        self.running = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, _: Deadline) -> str:
        with self._lock:
            self.running += self.nbytes
            self.most = max(self.most, self.running)
        self.began.release()
        assert self.go.wait(PATIENCE_S)
        with self._lock:
            self.running -= self.nbytes
        return "done"

    async def until_running(self, count: int) -> None:
        for _ in range(count):
            assert await asyncio.to_thread(self.began.acquire, timeout=PATIENCE_S)


def soon(seconds: float = PATIENCE_S) -> Deadline:
    return Deadline.after(seconds)


@pytest.mark.parametrize(("each", "at_once"), [(24 * MIB, 2), (33 * MIB, 1), (200 * MIB, 1), (8 * MIB, 6)])
def test_large_pictures_take_turns(each: int, at_once: int) -> None:
    """Six pictures in two families share the budget; one that is larger than the budget runs alone."""
    work = Work(each)

    async def test(admission: Admission, memory: MemoryBudget) -> list[str]:
        tasks = [
            asyncio.create_task(admission.run(family, work, soon(), 100, each))
            for family in ("detect", "depth", "detect", "depth", "detect", "depth")
        ]
        await work.until_running(at_once)
        assert memory.used == each * at_once
        work.go.set()
        return await asyncio.gather(*tasks)

    assert use(test) == ["done"] * 6
    assert work.most == each * at_once


def test_small_pictures_do_not_wait() -> None:
    """A picture of less than 1/64 of the budget runs while all of the budget is in use."""
    large, small = Work(LIMIT), Work(MIB - 1)
    small.go.set()

    async def test(admission: Admission, _: MemoryBudget) -> None:
        task = asyncio.create_task(admission.run("detect", large, soon(), 100, LIMIT))
        await large.until_running(1)
        assert await admission.run("detect", small, soon(), 100, MIB - 1) == "done"
        large.go.set()
        await task

    use(test)


def test_who_waits_too_long_is_told_so_and_leaves_its_place() -> None:
    """The time runs out in stage `queue`; the place in the family's queue is free again."""
    work = Work(LIMIT)

    async def test(admission: Admission, _: MemoryBudget) -> None:
        task = asyncio.create_task(admission.run("detect", work, soon(), 100, LIMIT))
        await work.until_running(1)
        with pytest.raises(DeadlineExceeded, match="queue"):
            await admission.run("detect", work, soon(0.05), 100, LIMIT)
        assert admission.occupancy()["detect"] == (1, 0, 100)
        work.go.set()
        await task

    use(test, running=2)


def test_a_caller_who_goes_away_while_waiting_keeps_nothing() -> None:
    """The next one in line gets what the cancelled one waited for."""
    work = Work(LIMIT)

    async def test(admission: Admission, _: MemoryBudget) -> None:
        tasks = [asyncio.create_task(admission.run("detect", work, soon(), 1, LIMIT)) for _ in range(3)]
        await work.until_running(1)
        tasks[1].cancel()
        work.go.set()
        assert await tasks[0] == await tasks[2] == "done"
        assert tasks[1].cancelled()

    use(test)


def test_a_picture_that_fails_gives_its_memory_back() -> None:
    """Whatever a call raises, the budget is whole again; so are all calls of a batch."""

    def fail(_: Deadline) -> str:
        raise InvalidImage("no picture")

    async def test(admission: Admission, memory: MemoryBudget) -> None:
        found = await admission.run_all("detect", [fail] * 4, soon(), 100, [LIMIT] * 4)
        assert [type(one) for one in found] == [InvalidImage] * 4
        assert memory.used == 0

    use(test)


class Pixels:
    """Stands for an array, and says when it is gone."""


def test_an_error_does_not_keep_what_its_frames_held() -> None:
    """The pixels of a failed picture are gone while its error is still being answered."""
    held: list[weakref.ref[Pixels]] = []

    def fail(_: Deadline) -> str:
        pixels = Pixels()
        held.append(weakref.ref(pixels))
        try:
            int("no number")
        except ValueError as error:
            raise InvalidImage(f"no picture: {pixels}") from error

    async def test(admission: Admission, _: MemoryBudget) -> None:
        with pytest.raises(InvalidImage) as refused:
            await admission.run("detect", fail, soon(), 100, LIMIT)
        assert refused.value.__cause__ is not None
        assert [ref() for ref in held] == [None]

    use(test)


def test_memory_goes_back_once_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are returned when no large picture has come for a while, not after each of them."""
    monkeypatch.setattr(memory_budget, "_PAUSE_S", 0.05)
    returned = threading.Semaphore(0)

    async def main() -> int:
        memory = MemoryBudget(LIMIT, returned.release)
        for _ in range(5):
            await memory.take(LIMIT, soon())
            memory.release(LIMIT)
        assert await asyncio.to_thread(returned.acquire, timeout=PATIENCE_S)
        await asyncio.sleep(0.2)
        return memory.used

    assert asyncio.run(main()) == 0
    assert not returned.acquire(blocking=False)
