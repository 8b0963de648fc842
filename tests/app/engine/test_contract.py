"""One contract for every engine: the fake, embedded, and a real Triton by shared memory and by bytes.

The models of two kinds compute in half precision; nothing but the last digits of the numbers may show it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
from support.models.engines import ENGINES, FP16, TWO_SERVERS, Make, colour_detector, mean_depth, waiting
from support.models.repository import CATALOGUE
from support.waiting import PATIENCE_S, eventually

from app.deadline import Deadline
from app.engine.base import NUMPY_DTYPES, Engine
from app.errors import (
    DeadlineExceeded,
    GatewayError,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    WeightsMissing,
)

pytestmark = [pytest.mark.long, pytest.mark.parametrize("kind", ENGINES)]
DETECTOR = CATALOGUE.branches["yolo11n_320"]
DEPTH = CATALOGUE.branches["midas_256"]
# What each engine knows of a branch whose configuration is in the repository and whose weights are not.
NO_WEIGHTS: dict[str, type[GatewayError]] = {
    "fake": ModelNotFound,
    "embedded": WeightsMissing,
    "shared_memory": ModelNotReady,  # Triton says no more than that it isn't loaded
    "bytes": ModelNotReady,
    TWO_SERVERS: ModelNotReady,
}


def near(kind: str) -> float:
    """The greatest difference to the model's numbers."""
    return 4e-3 if kind.endswith(FP16) else 1e-5


def soon() -> Deadline:
    return Deadline.after(PATIENCE_S)


def until_waiting(engine: Any, count: int) -> None:
    """Return once `count` threads stand in the detector's queue."""
    eventually(lambda: waiting(engine, DETECTOR.name) == count)


def servers(kind: str) -> int:
    """Return the number of servers; each has as many leases as are asked for."""
    return 2 if kind == TWO_SERVERS else 1


@contextmanager
def all_leased(engine: Engine, kind: str) -> Iterator[None]:
    """Hold every lease of the detector, of which each server has one."""
    with ExitStack() as held:
        for _ in range(servers(kind)):
            held.enter_context(engine.lease(DETECTOR, soon()))
        yield


def test_views_are_those_of_the_catalogue(make: Make, kind: str) -> None:
    """A lease has every tensor of the contract, writable and contiguous."""
    engine = make(kind)
    for branch in (DETECTOR, DEPTH):
        with engine.lease(branch, soon()) as lease:
            for views, specs in ((lease.inputs, branch.inputs), (lease.outputs, branch.outputs)):
                assert set(views) == {spec.name for spec in specs}
                for spec in specs:
                    view = views[spec.name]
                    assert view.shape == spec.shape
                    assert view.dtype == NUMPY_DTYPES[spec.datatype]
                    assert view.flags.c_contiguous
                    assert view.flags.writeable


def test_a_run_computes_the_model(make: Make, kind: str) -> None:
    """Outputs are the model's function of the inputs, call after call."""
    engine = make(kind)
    expected = np.empty((1, 84, 2100), np.float32)
    for seed in range(3):
        images = np.random.default_rng(seed).random((1, 3, 320, 320), dtype=np.float32)
        colour_detector({"images": images}, {"output0": expected})
        with engine.lease(DETECTOR, soon()) as lease:
            lease.inputs["images"][...] = images
            lease.run(soon())
            np.testing.assert_allclose(lease.outputs["output0"], expected, atol=near(kind))


def test_an_ensemble_takes_raw_pixels(make: Make, kind: str) -> None:
    """UINT8 NHWC goes through the preprocess graph into the model."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), dtype=np.uint8)
    expected = np.empty((1, 256, 256), np.float32)
    mean_depth({"INPUT__0": pixels}, {"OUTPUT__0": expected})
    with make(kind).lease(DEPTH, soon()) as lease:
        lease.inputs["INPUT__0"][...] = pixels
        lease.run(soon())
        np.testing.assert_allclose(lease.outputs["OUTPUT__0"], expected, atol=near(kind))


def test_two_leases_are_two_memories(make: Make, kind: str) -> None:
    """A lease is exclusive: what one writes the other doesn't see."""
    engine = make(kind)
    with engine.lease(DETECTOR, soon()) as one, engine.lease(DETECTOR, soon()) as other:
        one.inputs["images"].fill(1)
        other.inputs["images"].fill(2)
        assert one.inputs["images"].min() == one.inputs["images"].max() == 1
        assert not np.shares_memory(one.outputs["output0"], other.outputs["output0"])


def test_tensors_are_reused_with_their_workspace(make: Make, kind: str) -> None:
    """The next caller gets the same tensors, and what a pipeline kept with them."""
    engine = make(kind, leases=1)
    addresses = set()
    for _ in range(servers(kind)):
        with engine.lease(DETECTOR, soon()) as lease:
            lease.workspace["kept"] = "yes"
            addresses.add(lease.inputs["images"].ctypes.data)
    assert len(addresses) == servers(kind)
    with engine.lease(DETECTOR, soon()) as lease:
        assert lease.workspace["kept"] == "yes"
        assert lease.inputs["images"].ctypes.data in addresses


def test_there_are_never_more_leases_than_the_pool_holds(make: Make, kind: str) -> None:
    """The pool's size is the concurrency limit, and as many can be used at once."""
    engine = make(kind, leases=2, max_waiting=64)
    there_are = 2 * servers(kind)
    both = threading.Barrier(there_are, timeout=PATIENCE_S)
    out, most, lock = 0, 0, threading.Lock()

    def use(_: int) -> None:
        nonlocal out, most
        with engine.lease(DETECTOR, soon()):
            with lock:
                out += 1
                most = max(most, out)
            both.wait()
            with lock:
                out -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(40)))
    assert most == there_are


def test_who_waits_is_served_in_order(make: Make, kind: str) -> None:
    """First come, first served."""
    if servers(kind) > 1:
        pytest.skip("each server has a queue of its own")
    engine = make(kind, leases=1)
    served: list[int] = []

    def use(number: int) -> None:
        with engine.lease(DETECTOR, soon()):
            served.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(5)]
    with engine.lease(DETECTOR, soon()):
        for number, thread in enumerate(threads):
            thread.start()
            until_waiting(engine, number + 1)
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("max_waiting", [0, 2])
def test_a_full_queue_refuses_at_once(make: Make, kind: str, max_waiting: int) -> None:
    """With as many waiting as may, the next is told when to come again; who waited already is served."""
    engine = make(kind, leases=1, max_waiting=max_waiting)
    served: list[bool] = []

    def use() -> None:
        with engine.lease(DETECTOR, soon()):
            served.append(True)

    max_waiting *= servers(kind)
    threads = [threading.Thread(target=use) for _ in range(max_waiting)]
    with all_leased(engine, kind):
        for thread in threads:
            thread.start()
        until_waiting(engine, max_waiting)
        started = time.monotonic()
        with pytest.raises(Overloaded) as refusal, engine.lease(DETECTOR, soon()):
            pass
        assert time.monotonic() - started < PATIENCE_S / 2
        assert refusal.value.retry_after is not None
        assert refusal.value.retry_after > 0
    for thread in threads:
        thread.join()
    assert len(served) == max_waiting
    with engine.lease(DETECTOR, soon()):
        pass


def test_waiting_ends_with_the_deadline(make: Make, kind: str) -> None:
    """No lease in time is a deadline that ran out in the queue, and the queue forgets the waiter."""
    engine = make(kind, leases=1)
    with all_leased(engine, kind):
        with pytest.raises(DeadlineExceeded) as failure, engine.lease(DETECTOR, Deadline.after(0.1)):
            pass
        assert failure.value.stage == "queue"
        until_waiting(engine, 0)
    with engine.lease(DETECTOR, soon()):
        pass


def test_expired_work_never_starts(make: Make, kind: str) -> None:
    """Neither a lease nor a run begins after its deadline, and the tensors stay as they were."""
    engine = make(kind)
    with pytest.raises(DeadlineExceeded) as failure, engine.lease(DETECTOR, Deadline.after(0)):
        pass
    assert failure.value.stage == "queue"
    with engine.lease(DETECTOR, soon()) as lease:
        lease.outputs["output0"].fill(-1)
        with pytest.raises(DeadlineExceeded) as failure:
            lease.run(Deadline.after(0))
        assert failure.value.stage == "infer"
        assert lease.outputs["output0"].min() == lease.outputs["output0"].max() == -1


def test_a_branch_that_is_not_there_is_refused_by_name(make: Make, kind: str) -> None:
    """Leasing what can't be served is an error that says what is wrong with it."""
    branch = CATALOGUE.branches["yolo11x_640"]
    with (
        pytest.raises(NO_WEIGHTS[kind.removesuffix(FP16)], match="yolo11x_640"),
        make(kind).lease(branch, soon()),
    ):
        pass


def test_ready_names_every_model(make: Make, kind: str) -> None:
    """The state of each model of the catalogue is known; what isn't ready says why."""
    states = make(kind).ready()
    assert set(states) == set(CATALOGUE.models)
    assert {name for name in CATALOGUE.branches if states[name].ready} == {
        "yolo11n_320",
        "yolo11n_640",
        "midas_256",
    }
    assert all(state.reason for state in states.values() if not state.ready)


def test_a_lease_says_which_model_serves_it(make: Make, kind: str) -> None:
    """Provenance comes with the lease: runtime, device, digest and kind of weights."""
    engine = make(kind)
    with engine.lease(DEPTH, soon()) as lease:
        used = lease.model.used
    assert used.model_name == "midas_256"
    assert used.device == "cpu"
    if kind != "fake":
        assert used.weights == "random"
        assert used.weights_digest.startswith("sha256:")
        assert (used.preprocess_digest or "").startswith("sha256:")
        engine_kind = kind.removesuffix(FP16)
        assert used.runtime == ("inprocess" if engine_kind == "embedded" else "triton")
        assert used.precision == ("fp16" if kind.endswith(FP16) else "fp32")
        transports = {"embedded": "inprocess", TWO_SERVERS: "shared_memory"}
        assert lease.transport == transports.get(engine_kind, engine_kind)


def test_a_failing_caller_gives_its_lease_back(make: Make, kind: str) -> None:
    """An exception inside the block loses no tensors."""
    engine = make(kind, leases=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), engine.lease(DETECTOR, soon()):
            raise ZeroDivisionError
    with engine.lease(DETECTOR, soon()) as lease:
        lease.run(soon())


def test_many_threads_never_see_each_other_s_tensors(make: Make, kind: str) -> None:
    """16 threads of 50 runs each: every one gets the answer to its own input, and nothing of another's."""
    engine = make(kind, leases=3, max_waiting=64)

    def use(thread: int) -> list[tuple[tuple[int, int], set[float]]]:
        answers = []
        for run in range(50):
            with engine.lease(DEPTH, soon()) as lease:
                lease.inputs["INPUT__0"][:, :128].fill(thread)
                lease.inputs["INPUT__0"][:, 128:].fill(100 + run)
                lease.run(soon())
                answer = lease.outputs["OUTPUT__0"]
                seen = {
                    float(extreme(half))
                    for half in (answer[:, :128], answer[:, 128:])
                    for extreme in (np.min, np.max)
                }
                answers.append(((thread, 100 + run), seen))
        return answers

    with ThreadPoolExecutor(16) as threads:
        answers = [answer for answers in threads.map(use, range(16)) for answer in answers]
    assert len(answers) == 800
    for written, seen in answers:
        assert sorted(seen) == pytest.approx([(value / 255 - 0.5) / 0.5 for value in written], abs=1e-5)


def test_closing_twice_is_fine(make: Make, kind: str) -> None:
    """Shutdown can be asked for more than once."""
    engine = make(kind)
    with engine.lease(DETECTOR, soon()):
        pass
    engine.close()
    engine.close()
