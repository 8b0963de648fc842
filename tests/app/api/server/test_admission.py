"""Admission control is bounded and fair, refuses at once, and releases every place."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.waiting import PATIENCE_S, eventually_on_loop

from app.api.server.admission import Admission, AdmissionLimits
from app.api.server.memory_budget import MemoryBudget
from app.api.server.threads import Threads
from app.deadline import Deadline
from app.errors import DeadlineExceeded, InvalidImage, Overloaded

LIMITS = AdmissionLimits(running=2, waiting=4, nbytes=1000)


def use(test: Callable[[Admission], Awaitable[Any]], limits: AdmissionLimits = LIMITS) -> Any:
    """Run a test on a loop of its own; in the end every place is free again."""

    async def main() -> Any:
        with contextlib.closing(Threads(8, "test")) as workers:
            admission = Admission(("detect", "depth"), limits, workers, MemoryBudget(1 << 30))
            result = await test(admission)
            await eventually_on_loop(lambda: not any(any(row) for row in admission.occupancy().values()))
            return result

    return asyncio.run(main())


def soon(seconds: float = PATIENCE_S) -> Deadline:
    return Deadline.after(seconds)


async def until(admission: Admission, running: int, waiting: int) -> None:
    """Return once so many items of detection run and wait."""
    await eventually_on_loop(lambda: admission.occupancy()["detect"][:2] == (running, waiting))


class Work:
    """A call that runs until it is let go; counts how many run at once."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.running = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, _: Deadline) -> str:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.go.wait(PATIENCE_S)
        with self._lock:
            self.running -= 1
        return "done"


def test_no_more_run_at_once_than_may() -> None:
    """Requests beyond the places wait, and run in their turn."""
    work = Work()

    async def test(admission: Admission) -> list[str]:
        tasks = [asyncio.create_task(admission.run("detect", work, soon())) for _ in range(6)]
        await until(admission, 2, 4)
        await eventually_on_loop(lambda: work.running == 2)
        work.go.set()
        return await asyncio.gather(*tasks)

    assert use(test) == ["done"] * 6
    assert work.most == 2


def test_a_full_queue_refuses_at_once() -> None:
    """With time to come again; another family isn't touched, and nothing of what waits is lost."""
    work = Work()

    async def test(admission: Admission) -> None:
        tasks = [asyncio.create_task(admission.run("detect", work, soon())) for _ in range(6)]
        await until(admission, 2, 4)
        with pytest.raises(Overloaded) as refused:
            await admission.run("detect", work, soon())
        assert refused.value.retry_after is not None
        assert refused.value.retry_after > 0
        with pytest.raises(Overloaded):
            admission.check("detect")
        assert await admission.run("depth", lambda _: 1, soon()) == 1
        work.go.set()
        assert await asyncio.gather(*tasks) == ["done"] * 6
        admission.check("detect")

    use(test)


def test_bytes_are_counted_too() -> None:
    """Few large bodies fill the queue as many small ones do."""
    work = Work()

    async def test(admission: Admission) -> None:
        tasks = [asyncio.create_task(admission.run("detect", work, soon(), 400)) for _ in range(2)]
        await until(admission, 2, 0)
        with pytest.raises(Overloaded):
            await admission.run("detect", work, soon(), 400)
        work.go.set()
        await asyncio.gather(*tasks)

    use(test)


def test_a_batch_counts_each_item() -> None:
    """Four items and one more don't fit beside two that run and one that waits; nothing of the batch is begun."""
    work = Work()

    async def test(admission: Admission) -> None:
        tasks = [asyncio.create_task(admission.run("detect", work, soon())) for _ in range(3)]
        await until(admission, 2, 1)
        with pytest.raises(Overloaded):
            await admission.run_all("detect", [work] * 4, soon())
        work.go.set()
        await asyncio.gather(*tasks)

    use(test)
    assert work.most == 2


def test_a_batch_larger_than_the_queue_is_taken_while_there_is_a_place() -> None:
    """A thousand prompts of one caller are no overload by themselves."""

    async def test(admission: Admission) -> list[int | BaseException]:
        return await admission.run_all("detect", [lambda _, n=n: n for n in range(100)], soon())

    assert use(test) == list(range(100))


def test_a_large_batch_doesn_t_hold_up_others() -> None:
    """Requests take turns: one frame that comes after a batch of many doesn't wait for all of it."""
    order: list[str] = []
    go = threading.Event()

    def call(name: str) -> Callable[[Deadline], None]:
        def work(deadline: Deadline) -> None:
            assert go.wait(PATIENCE_S)
            order.append(name)

        return work

    async def test(admission: Admission) -> None:
        batch = asyncio.create_task(admission.run_all("detect", [call("batch")] * 40, soon()))
        await until(admission, 1, 39)
        single = asyncio.create_task(admission.run("detect", call("single"), soon()))
        await until(admission, 1, 40)
        go.set()
        await asyncio.gather(batch, single)

    use(test, AdmissionLimits(running=1, waiting=100, nbytes=1000))
    assert order.index("single") <= 2


def test_each_item_of_a_batch_has_its_own_outcome() -> None:
    """One that fails is an exception in its place."""

    def bad(deadline: Deadline) -> int:
        raise InvalidImage("broken")

    async def test(admission: Admission) -> list[Any]:
        return await admission.run_all("detect", [lambda _: 1, bad, lambda _: 3], soon())

    first, second, third = use(test)
    assert (first, third) == (1, 3)
    assert isinstance(second, InvalidImage)


def test_what_waits_too_long_is_dropped_before_it_starts() -> None:
    """The stage says that it was queueing; the work is never done."""
    work, late = Work(), Work()

    async def test(admission: Admission) -> None:
        tasks = [asyncio.create_task(admission.run("detect", work, soon())) for _ in range(2)]
        await until(admission, 2, 0)
        with pytest.raises(DeadlineExceeded) as exceeded:
            await admission.run("detect", late, soon(0.05))
        assert exceeded.value.stage == "queue"
        work.go.set()
        await asyncio.gather(*tasks)

    use(test)
    assert late.most == 0


def test_a_caller_that_leaves_frees_its_place() -> None:
    """Cancelled while it waits, it leaves the queue; cancelled while it runs, its deadline is over at once."""
    work = Work()
    seen: list[Deadline] = []

    def running(deadline: Deadline) -> str:
        seen.append(deadline)
        return work(deadline)

    async def test(admission: Admission) -> None:
        tasks = [asyncio.create_task(admission.run("detect", running, soon())) for _ in range(3)]
        await until(admission, 2, 1)
        await eventually_on_loop(lambda: len(seen) == 2)
        tasks[2].cancel()
        tasks[0].cancel()
        await eventually_on_loop(lambda: sum(deadline.remaining() > 0 for deadline in seen) == 1)
        await until(admission, 2, 0)  # a thread ends by itself
        work.go.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    use(test)


def test_the_call_knows_how_long_it_waited() -> None:
    """The call records its wait for the stage `queue` of the answer's timings."""
    work = Work()

    async def test(admission: Admission) -> None:
        tasks = [asyncio.create_task(admission.run("detect", work, soon())) for _ in range(2)]
        await until(admission, 2, 0)
        started = time.monotonic()
        waiting = asyncio.create_task(admission.run("detect", lambda deadline: deadline.queued_s, soon()))
        await until(admission, 2, 1)
        await asyncio.sleep(0.1)
        work.go.set()
        await asyncio.gather(*tasks)
        assert 0.09 < await waiting < time.monotonic() - started

    use(test)
