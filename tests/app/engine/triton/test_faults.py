"""A real Triton that is killed, suspended, cut off and reloaded under a run; and what it is told of deadlines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient
from support.models import repository as test_repository
from support.servers.cable import Cable
from support.models.repository import CATALOGUE
from support.models.timed import QUEUE_POLICY, Timed
from deploy.local.triton_server import TritonServer
from support.waiting import eventually

from app.engine.triton import retries
from app.deadline import Deadline
from app.engine.triton.engine import TritonEngine, TritonOptions
from app.engine.triton.messages import timeout_parameter
from app.engine.weights import WeightsBook
from app.errors import DeadlineExceeded, GatewayError, ModelNotReady, TritonUnavailable
from routing.catalogue import Branch
from routing.policy import Readiness

pytestmark = pytest.mark.triton
TIMED, QUEUED = CATALOGUE.branches["yolo11n_320"], CATALOGUE.branches["yolo11n_640"]
ENSEMBLE = CATALOGUE.branches["midas_256"]
OUTPUT = {TIMED.name: "output0", QUEUED.name: "output0", ENSEMBLE.name: "OUTPUT__0"}
Connect = Callable[..., TritonEngine]


@dataclass(frozen=True, slots=True)
class Place:
    """A Triton whose models answer the timeout they were given, and take as long as they are told."""

    triton: TritonServer
    models: Path
    timed: Timed
    queued: Timed

    def inferences(self, branch: Branch) -> int:
        """Runs that Triton's model has begun, whatever became of them."""
        with grpcclient.InferenceServerClient(self.triton.grpc_url) as client:
            return int(client.get_inference_statistics(branch.name).model_stats[0].execution_count)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    models = test_repository.build(
        tmp_path_factory.mktemp("models"), [TIMED.name, QUEUED.name, ENSEMBLE.name]
    )
    timed, queued = Timed(models, TIMED.name), Timed(models, QUEUED.name, QUEUE_POLICY)
    Timed(models, "midas_256_onnx")
    with TritonServer(models, tmp_path_factory.mktemp("log") / "triton.log") as triton:
        yield Place(triton, models, timed, queued)
        triton.kill()


@pytest.fixture(autouse=True)
def quick(place: Place) -> None:
    """Runs take no time, until a test says otherwise; the server lives, even if resuming it has killed it."""
    place.triton.revived()
    place.timed.takes(0)
    place.queued.takes(0)


@pytest.fixture
def connect(place: Place) -> Iterator[Connect]:
    """Makes engines that are closed at the end."""
    made: list[TritonEngine] = []

    def build(url: str | None = None, poll_s: float = 0.1, **options: object) -> TritonEngine:
        settings = TritonOptions(poll_interval_s=poll_s, **options)  # type: ignore[arg-type]  # named by the tests
        made.append(
            TritonEngine(CATALOGUE, url or place.triton.grpc_url, WeightsBook(place.models, None), settings)
        )
        return made[-1]

    yield build
    for engine in made:
        engine.close()


def told(engine: TritonEngine, seconds: float = 10, branch: Branch = TIMED) -> float:
    """One run: the timeout in seconds that the model was given."""
    deadline = Deadline.after(seconds)
    with engine.lease(branch, deadline) as lease:
        lease.run(deadline)
        return float(lease.outputs[OUTPUT[branch.name]].flat[0])


def serves(engine: TritonEngine) -> bool:
    try:
        told(engine, 2)
    except GatewayError:
        return False
    return True


def seconds_until(condition: Callable[[], bool]) -> float:
    started = time.monotonic()
    eventually(condition)
    return time.monotonic() - started


def away(engine: TritonEngine) -> bool:
    return engine.ready()[TIMED.name].readiness is Readiness.UNREACHABLE


def sent_again(engine: TritonEngine) -> dict[str, int]:
    """Retries by reason, of those that there were."""
    return {reason: count for reason, count in engine.usage().retries.items() if count}


def refusals(engine: TritonEngine, count: int = 50) -> float:
    """Refuse all of so many callers with half a minute each; return the total seconds."""
    started = time.monotonic()
    for _ in range(count):
        with pytest.raises(TritonUnavailable) as refusal:
            told(engine, 30)
        assert refusal.value.retry_after is not None
    return time.monotonic() - started


@pytest.mark.parametrize("transport", ["shared_memory", "bytes"])
@pytest.mark.parametrize("branch", [TIMED, ENSEMBLE], ids=lambda branch: branch.name)
def test_triton_is_told_what_is_left(connect: Connect, transport: str, branch: Branch) -> None:
    """Every run has its own deadline in microseconds, by both transports; an ensemble hands it to its parts."""
    engine = connect(transport=transport)
    for seconds in (10.0, 3.0, 60.0):
        assert seconds - 1 < told(engine, seconds, branch) <= seconds


def test_a_time_that_runs_out_in_triton_s_queue_is_a_deadline(place: Place, connect: Connect) -> None:
    """Its words become 504 in stage infer, not a retry; the model never sees the request."""
    engine = connect()
    place.queued.takes(0.8)
    before = place.inferences(QUEUED)
    with ThreadPoolExecutor(2) as callers:
        running = [callers.submit(told, engine, 10, QUEUED) for _ in range(2)]
        eventually(lambda: sum(pool.in_use for pool in engine.usage().pools.values()) == 2)
        time.sleep(0.1)
        with engine.lease(QUEUED, Deadline.after(10)) as lease:
            request = lease._request + timeout_parameter(0.1)  # type: ignore[attr-defined]  # by reference
            with pytest.raises(DeadlineExceeded) as late:
                engine._client.infer(QUEUED.name, request, 10.0)
            assert [one.result() > 9 for one in running] == [True, True]
    assert late.value.stage == "infer"
    assert place.inferences(QUEUED) == before + 2
    assert sent_again(engine) == {}


@pytest.mark.parametrize("transport", ["shared_memory", "bytes"])
def test_what_has_expired_never_reaches_triton(place: Place, connect: Connect, transport: str) -> None:
    """Not one of 20 runs whose time was over, or whose caller had left, is in Triton's own statistics."""
    engine = connect(transport=transport)
    told(engine)
    before = place.inferences(TIMED)
    for number in range(20):
        deadline = Deadline.after(10)
        with engine.lease(TIMED, deadline) as lease:
            if number % 2:
                deadline.cancel()
            else:
                deadline = Deadline.after(0)
            with pytest.raises(DeadlineExceeded):
                lease.run(deadline)
    told(engine)
    assert place.inferences(TIMED) == before + 1


def test_a_run_whose_caller_leaves_ends_by_itself(place: Place, connect: Connect) -> None:
    """The run isn't cancelled: Triton finishes it, and the lease with its region serves the next caller."""
    engine = connect(leases=1)
    told(engine)
    region = engine._pools[TIMED.name]._free[0]._region.name  # type: ignore[union-attr]  # of shared memory
    place.timed.takes(0.3)
    deadline = Deadline.after(10)
    threading.Timer(0.1, deadline.cancel).start()
    started = time.monotonic()
    with engine.lease(TIMED, deadline) as lease:
        lease.run(deadline)
    assert 0.25 < time.monotonic() - started < 5
    place.timed.takes(0)
    told(engine)
    assert engine._pools[TIMED.name]._free[0]._region.name == region  # type: ignore[union-attr]  # as above


@pytest.mark.parametrize("transport", ["shared_memory", "bytes"])
def test_a_connection_that_is_cut_costs_no_request(place: Place, connect: Connect, transport: str) -> None:
    """The run is sent again, within the caller's time, and answered right; it is counted, and Triton ran it twice."""
    with Cable(place.triton.grpc_url) as cable:
        engine = connect(cable.url, poll_s=3600.0, transport=transport)
        told(engine)
        before = place.inferences(TIMED)
        place.timed.takes(0.5)
        with ThreadPoolExecutor(1) as caller:
            running = caller.submit(told, engine, 10)
            time.sleep(0.25)
            cable.cut()
            assert 8 < running.result() < 9.9  # what was left of the 10 seconds by then
        assert sent_again(engine) == {"unavailable": 1}
        assert place.inferences(TIMED) == before + 2
        engine.close()


def test_what_is_sent_again_has_a_region_of_its_own(place: Place, connect: Connect) -> None:
    """The cut-off run writes into the old one, which nobody reads: not this caller, nor the next."""
    with Cable(place.triton.grpc_url) as cable:
        engine = connect(cable.url, poll_s=3600.0, leases=1)
        place.timed.takes(0.4)
        deadline = Deadline.after(10)
        with engine.lease(TIMED, deadline) as lease:
            lease.workspace["view"] = lease.inputs["images"][0, 0]
            lease.inputs["images"].fill(7)
            old = lease.outputs["output0"]
            threading.Timer(0.2, cable.cut).start()
            lease.run(deadline)
            assert lease.workspace == {}
            assert lease.inputs["images"].min() == lease.inputs["images"].max() == 7
            fresh = lease.outputs["output0"]
            assert fresh is not old
            assert old.max() > fresh.max() > 0  # the run that was cut off had more time left, and did write
            lease.workspace["again"] = True
        with engine.lease(TIMED, Deadline.after(10)) as lease:
            assert lease.workspace == {}
        engine.close()


def test_a_model_that_is_loaded_anew_is_waited_for(
    place: Place, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`not_ready` is sent again after a pause; one that stays away is said to be, after two more attempts."""
    engine = connect(poll_s=3600.0)
    told(engine)
    with grpcclient.InferenceServerClient(place.triton.grpc_url) as client:
        client.unload_model(TIMED.name)
        with pytest.raises(ModelNotReady):
            told(engine)
        assert sent_again(engine) == {"not_ready": 2}
        with monkeypatch.context() as patched:
            # The pause lasts exactly as long as loading does, however slow the machine.
            patched.setattr(retries.time, "sleep", lambda _: client.load_model(TIMED.name))
            told(engine)
    assert sent_again(engine) == {"not_ready": 3}


def test_callers_under_load_see_only_clean_errors_while_a_model_goes_and_comes(
    place: Place, connect: Connect
) -> None:
    """Four callers without a pause, three times unloaded and loaded: right answers or model_not_ready, in time."""
    engine = connect()
    place.timed.takes(0.01)
    stop = threading.Event()
    seen: list[str] = []

    def ask() -> None:
        while not stop.is_set():
            started = time.monotonic()
            try:
                assert 4 < told(engine, 5) < 5
                seen.append("ok")
            except ModelNotReady:
                seen.append("not ready")
                time.sleep(0.01)
            assert time.monotonic() - started < 6

    with grpcclient.InferenceServerClient(place.triton.grpc_url) as client, ThreadPoolExecutor(4) as callers:
        running = [callers.submit(ask) for _ in range(4)]
        for _ in range(3):
            time.sleep(0.2)
            client.unload_model(TIMED.name)
            client.load_model(TIMED.name)
        eventually(lambda: serves(engine))
        stop.set()
        for one in running:
            one.result()
    assert {*seen} <= {"ok", "not ready"}
    assert seen.count("ok") > 20


def test_a_triton_that_is_killed_costs_milliseconds(place: Place, connect: Connect) -> None:
    """Killed under four runs: all end at once, who comes is refused at once, and READY is served within a second."""
    engine = connect()
    told(engine)
    place.timed.takes(5)
    with ThreadPoolExecutor(4) as callers:
        running = [callers.submit(told, engine, 30) for _ in range(4)]
        eventually(lambda: engine.usage().pools[TIMED.name].in_use == 4)
        time.sleep(0.2)
        place.triton.kill()
        started = time.monotonic()
        for one in running:
            assert isinstance(one.exception(), TritonUnavailable)
        assert time.monotonic() - started < 2
    eventually(lambda: away(engine))
    assert refusals(engine) < 5
    usage = engine.usage()
    assert (usage.breaker_open, usage.breaker_openings) == (True, {"refused": 1, "silent": 0})
    place.timed.takes(0)
    place.triton.start()
    assert seconds_until(lambda: serves(engine)) < 10  # how soon: tests/chaos/mixed.py
    assert engine.usage().breaker_open is False


def test_a_triton_that_hangs_does_not_hold_its_callers(place: Place, connect: Connect) -> None:
    """Suspended under runs that may take a minute, 40 in the queue: all end within seconds, later ones at once.

    Continued, it is served within a second, through new regions.
    """
    engine = connect(leases=2, silence_s=0.4)
    place.timed.takes(0.5)
    with ThreadPoolExecutor(42) as callers:
        running = [callers.submit(told, engine, 60) for _ in range(42)]
        eventually(lambda: engine.usage().pools[TIMED.name].waiting == 40)
        place.triton.suspend()
        started = time.monotonic()
        for one in running:
            assert isinstance(one.exception(), TritonUnavailable)
        assert time.monotonic() - started < 10
    assert away(engine)
    assert "silent" in (engine.ready()[TIMED.name].reason or "")
    assert refusals(engine) < 5
    assert engine.usage().breaker_openings == {"refused": 0, "silent": 1}
    place.timed.takes(0)
    place.triton.resume()
    eventually(lambda: place.triton.revived() and serves(engine), 60)  # how soon: tests/chaos/mixed.py
    with engine.lease(TIMED, Deadline.after(5)) as lease:
        assert lease.transport == "shared_memory"


def test_one_poll_without_an_answer_opens_nothing(place: Place, connect: Connect) -> None:
    """Suspended for less than two polls take, no caller hears of it."""
    engine = connect(silence_s=1.0)
    told(engine)
    place.triton.suspend()
    threading.Timer(1.2, place.triton.resume).start()
    told(engine, 20)
    assert engine.usage().breaker_openings == {"refused": 0, "silent": 0}


def test_an_engine_over_a_triton_that_hangs_closes_soon(place: Place, connect: Connect) -> None:
    """Shutdown asks nothing of a server that is silent, however many regions it knows."""
    engine = connect(silence_s=0.2, leases=12)
    with ThreadPoolExecutor(12) as callers:
        place.timed.takes(0.05)
        list(callers.map(lambda _: told(engine, 10), range(12)))
    place.triton.suspend()
    try:
        eventually(lambda: away(engine))
        started = time.monotonic()
        engine.close()
        assert time.monotonic() - started < 5
    finally:
        place.triton.resume()
