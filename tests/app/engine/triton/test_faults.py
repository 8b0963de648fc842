"""A real Triton that is killed, suspended, cut off and reloaded under a run; and what it is told of deadlines."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as grpcclient
from support.models import repository as test_repository
from support.servers.cable import Cable
from support.models.engines import triton_engine
from support.models.repository import CATALOGUE
from support.models.timed import QUEUE_POLICY, Timed
from deploy.local.triton_server import TritonServer
from support.waiting import PATIENCE_S, eventually

from app.engine.triton import retries
from app.deadline import Deadline
from app.engine.triton.client import translated_errors
from app.engine.triton.engine import TritonEngine
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
# Longer than a busy machine is silent, shorter than a caller of these tests waits.
SILENCE_S = 5.0
ROUNDING_S = 1e-4  # of the timeout in the model's answer: microseconds in float32


@dataclass(frozen=True, slots=True)
class Place:
    """A Triton whose models answer the timeout they were given, and hold their runs while they are told to."""

    triton: TritonServer
    models: Path
    timed: Timed
    queued: Timed


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
    """No run is held, until a test says otherwise; the server lives, even if resuming it has killed it."""
    place.timed.release("run")
    place.queued.release("run")
    place.triton.revived()


@pytest.fixture
def connect(place: Place) -> Iterator[Connect]:
    """Makes engines that are closed at the end."""
    made: list[TritonEngine] = []

    def build(
        url: str | None = None, poll_s: float = 0.1, silence_s: float = SILENCE_S, **options: object
    ) -> TritonEngine:
        times = {"poll_interval_s": poll_s, "silence_s": silence_s, "control_timeout_s": 30.0}
        book = WeightsBook(place.models, None)
        made.append(triton_engine(url or place.triton.grpc_url, book, **times, **options))
        return made[-1]

    yield build
    for engine in made:
        engine.close()


def told(engine: TritonEngine, seconds: float = PATIENCE_S, branch: Branch = TIMED) -> float:
    """One run: the timeout in seconds that the model was given."""
    return told_by(engine, Deadline.after(seconds), branch)


def told_by(engine: TritonEngine, deadline: Deadline, branch: Branch = TIMED) -> float:
    """One run of a caller with this deadline: the timeout in seconds that the model was given."""
    with engine.lease(branch, deadline) as lease:
        lease.run(deadline)
        return float(lease.outputs[OUTPUT[branch.name]].flat[0])


def serves(engine: TritonEngine) -> bool:
    try:
        told(engine, PATIENCE_S / 10)
    except GatewayError:
        return False
    return True


@contextlib.contextmanager
def held(timed: Timed) -> Iterator[Callable[[], None]]:
    """Hold the model's runs; the function returns once one more has begun than before."""
    before = timed.begun
    with timed.held("run"):
        yield lambda: eventually(lambda: timed.begun > before)


def away(engine: TritonEngine) -> bool:
    return engine.ready()[TIMED.name].readiness is Readiness.UNREACHABLE


def sent_again(engine: TritonEngine) -> dict[str, int]:
    """Retries by reason, of those that there were."""
    return {reason: count for reason, count in engine.usage().retries.items() if count}


def assert_refused_at_once(engine: TritonEngine, count: int = 50) -> None:
    """Ask so often with much time: all refusals together take less than one caller's time."""
    started = time.monotonic()
    for _ in range(count):
        with pytest.raises(TritonUnavailable) as refusal:
            told(engine)
        assert refusal.value.retry_after is not None
    assert time.monotonic() - started < PATIENCE_S / 2


@pytest.mark.parametrize("transport", ["shared_memory", "bytes"])
@pytest.mark.parametrize("branch", [TIMED, ENSEMBLE], ids=lambda branch: branch.name)
def test_triton_is_told_what_is_left(connect: Connect, transport: str, branch: Branch) -> None:
    """Every run has its own deadline in microseconds, by both transports; an ensemble hands it to its parts."""
    engine = connect(transport=transport)
    for seconds in (100.0, 50.0, 200.0):
        deadline = Deadline.after(seconds)
        answer = told_by(engine, deadline, branch)
        assert deadline.remaining() - ROUNDING_S <= answer <= seconds


def test_a_time_that_runs_out_in_triton_s_queue_is_a_deadline(place: Place, connect: Connect) -> None:
    """Its words become 504 in stage infer, not a retry; the model never sees the request."""
    engine = connect()
    before = place.queued.begun
    with ThreadPoolExecutor(2) as callers, held(place.queued) as begins:
        running = [callers.submit(told, engine, PATIENCE_S, QUEUED) for _ in range(2)]
        eventually(lambda: sum(pool.in_use for pool in engine.usage().pools.values()) == 2)
        begins()
        with engine.lease(QUEUED, Deadline.after(PATIENCE_S)) as lease:
            request = lease._request + timeout_parameter(0.1)  # type: ignore[attr-defined]  # by reference
            with pytest.raises(DeadlineExceeded) as late:
                engine._client.infer(QUEUED.name, request, PATIENCE_S)
        place.queued.release("run")
        assert all(one.result() > 1 for one in running)
    assert late.value.stage == "infer"
    assert place.queued.begun == before + 2
    assert sent_again(engine) == {}


@pytest.mark.parametrize("transport", ["shared_memory", "bytes"])
def test_what_has_expired_never_reaches_triton(place: Place, connect: Connect, transport: str) -> None:
    """Not one of 20 runs whose time was over, or whose caller had left, reaches the model."""
    engine = connect(transport=transport)
    told(engine)
    before = place.timed.begun
    for number in range(20):
        deadline = Deadline.after(PATIENCE_S)
        with engine.lease(TIMED, deadline) as lease:
            if number % 2:
                deadline.cancel()
            else:
                deadline = Deadline.after(0)
            with pytest.raises(DeadlineExceeded):
                lease.run(deadline)
    told(engine)
    assert place.timed.begun == before + 1


def test_a_run_whose_caller_leaves_ends_by_itself(place: Place, connect: Connect) -> None:
    """The run isn't cancelled: Triton finishes it, and the lease with its region serves the next caller."""
    engine = connect(leases=1)
    told(engine)
    region = engine._pools[TIMED.name]._free[0]._region.name  # type: ignore[union-attr]  # of shared memory
    deadline = Deadline.after(PATIENCE_S)
    with ThreadPoolExecutor(1) as caller, held(place.timed) as begins:
        running = caller.submit(told_by, engine, deadline)
        begins()
        deadline.cancel()
        with pytest.raises(TimeoutError):
            running.result(0.2)
        place.timed.release("run")
        assert running.result() > 0
    told(engine)
    assert engine._pools[TIMED.name]._free[0]._region.name == region  # type: ignore[union-attr]  # as above


@pytest.mark.parametrize("transport", ["shared_memory", "bytes"])
def test_a_connection_that_is_cut_costs_no_request(place: Place, connect: Connect, transport: str) -> None:
    """The run is sent again, within the caller's time, and answered right; it is counted, and Triton ran it twice."""
    with Cable(place.triton.grpc_url) as cable:
        engine = connect(cable.url, poll_s=3600.0, transport=transport)
        told(engine)
        before = place.timed.begun
        deadline = Deadline.after(PATIENCE_S)
        with ThreadPoolExecutor(1) as caller, held(place.timed) as begins:
            running = caller.submit(told_by, engine, deadline)
            begins()
            left = deadline.remaining()
            cable.cut()
            eventually(lambda: sent_again(engine) == {"unavailable": 1})
            place.timed.release("run")
            answer = running.result()
            assert deadline.remaining() - ROUNDING_S <= answer <= left
        assert sent_again(engine) == {"unavailable": 1}
        assert place.timed.begun == before + 2
        engine.close()


def test_what_is_sent_again_has_a_region_of_its_own(place: Place, connect: Connect) -> None:
    """The cut-off run writes into the old one, which nobody reads: not this caller, nor the next."""
    with Cable(place.triton.grpc_url) as cable:
        engine = connect(cable.url, poll_s=3600.0, leases=1)

        def cut(begins: Callable[[], None]) -> None:
            begins()
            cable.cut()
            eventually(lambda: sent_again(engine) == {"unavailable": 1})
            place.timed.release("run")

        deadline = Deadline.after(PATIENCE_S)
        with ThreadPoolExecutor(1) as other, held(place.timed) as begins, engine.lease(TIMED, deadline) as lease:
            lease.workspace["view"] = lease.inputs["images"][0, 0]
            lease.inputs["images"].fill(7)
            old = lease.outputs["output0"]
            cutting = other.submit(cut, begins)
            lease.run(deadline)
            cutting.result()
            assert lease.workspace == {}
            assert lease.inputs["images"].min() == lease.inputs["images"].max() == 7
            fresh = lease.outputs["output0"]
            assert fresh is not old
            assert old.max() > fresh.max() > 0  # the run that was cut off had more time left, and did write
            lease.workspace["again"] = True
        with engine.lease(TIMED, Deadline.after(PATIENCE_S)) as lease:
            assert lease.workspace == {}
        engine.close()


def test_a_model_that_is_loaded_anew_is_waited_for(
    place: Place, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`not_ready` is sent again after a pause; one that stays away is said to be, after two more attempts."""
    with grpcclient.InferenceServerClient(place.triton.grpc_url) as client:
        engine = connect(poll_s=3600.0)
        told(engine)
        client.unload_model(TIMED.name)
        with pytest.raises(ModelNotReady):
            told(engine)
        assert sent_again(engine) == {"not_ready": 2}
        client.load_model(TIMED.name)
        engine = connect(poll_s=3600.0)  # the first one has been told by the answers, and may have asked since
        told(engine)
        client.unload_model(TIMED.name)
        with monkeypatch.context() as patched:
            # The pause lasts exactly as long as loading does, however slow the machine.
            patched.setattr(retries.time, "sleep", lambda _: client.load_model(TIMED.name))
            told(engine)
    assert sent_again(engine) == {"not_ready": 1}


def test_callers_under_load_see_only_clean_errors_while_a_model_goes_and_comes(
    place: Place, connect: Connect
) -> None:
    """Four callers without a pause, three times unloaded and loaded: right answers or model_not_ready, in time."""
    engine = connect()
    stop = threading.Event()
    seen: list[str] = []

    def ask() -> None:
        while not stop.is_set():
            deadline = Deadline.after(PATIENCE_S)
            try:
                answer = told_by(engine, deadline)
                assert deadline.remaining() - ROUNDING_S <= answer <= PATIENCE_S
                seen.append("ok")
            except ModelNotReady:
                seen.append("not ready")
                time.sleep(0.01)

    def served_again() -> None:
        before = seen.count("ok")
        eventually(lambda: seen.count("ok") > before + 8 or any(one.done() for one in running))

    with grpcclient.InferenceServerClient(place.triton.grpc_url) as client, ThreadPoolExecutor(4) as callers:
        running = [callers.submit(ask) for _ in range(4)]
        try:
            for _ in range(3):
                served_again()
                client.unload_model(TIMED.name)
                client.load_model(TIMED.name)
            served_again()
        finally:
            stop.set()
        for one in running:
            one.result()
    assert {*seen} == {"ok", "not ready"}


def test_a_triton_that_is_killed_costs_milliseconds(place: Place, connect: Connect) -> None:
    """Killed under four runs: all end long before their time, as does who comes, and READY is served again."""
    engine = connect()
    told(engine)
    with ThreadPoolExecutor(4) as callers, held(place.timed) as begins:
        running = [callers.submit(told, engine) for _ in range(4)]
        eventually(lambda: engine.usage().pools[TIMED.name].in_use == 4)
        begins()
        place.triton.kill()
        for one in running:
            assert isinstance(one.exception(PATIENCE_S / 2), TritonUnavailable)
    eventually(lambda: away(engine))
    assert_refused_at_once(engine)
    usage = engine.usage()
    assert (usage.breaker_open, usage.breaker_openings) == (True, {"refused": 1, "silent": 0})
    place.triton.start()
    eventually(lambda: serves(engine))  # how soon: tests/chaos/mixed.py
    assert engine.usage().breaker_open is False


def test_a_triton_that_hangs_does_not_hold_its_callers(place: Place, connect: Connect) -> None:
    """Suspended under runs that may take minutes, 40 in the queue: all end long before, later ones at once.

    Continued, it is served again, through new regions.
    """
    engine = connect(leases=2, silence_s=2)
    with ThreadPoolExecutor(42) as callers, held(place.timed):
        running = [callers.submit(told, engine) for _ in range(42)]
        eventually(lambda: engine.usage().pools[TIMED.name].waiting == 40)
        place.triton.suspend()
        for one in running:
            assert isinstance(one.exception(PATIENCE_S / 2), TritonUnavailable)
    assert away(engine)
    assert "silent" in (engine.ready()[TIMED.name].reason or "")
    assert_refused_at_once(engine)
    assert engine.usage().breaker_openings == {"refused": 0, "silent": 1}
    place.triton.resume()
    eventually(lambda: place.triton.revived() and serves(engine))  # how soon: tests/chaos/mixed.py
    with engine.lease(TIMED, Deadline.after(PATIENCE_S)) as lease:
        assert lease.transport == "shared_memory"


def test_one_poll_without_an_answer_opens_nothing(
    place: Place, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Suspended until the first poll has failed, no caller hears of it."""
    engine = connect()
    told(engine)
    silences: list[bool] = []
    note = engine._breaker.failed

    def resume(reason: str, *, silent: bool) -> bool:
        place.triton.resume()
        silences.append(silent)
        return note(reason, silent=silent)

    monkeypatch.setattr(engine._breaker, "failed", resume)
    place.triton.suspend()
    told(engine)
    eventually(lambda: silences == [True])
    assert engine.usage().breaker_openings == {"refused": 0, "silent": 0}


def test_a_connection_that_breaks_under_a_poll_opens_nothing(
    place: Place, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next poll makes another one, and callers go on."""
    engine = connect(poll_s=3600.0)
    told(engine)
    look, failed = engine._view.look, threading.Event()

    def breaks_once() -> set[str]:
        if failed.is_set():
            return look()
        failed.set()
        with translated_errors("repository index"):
            raise Broken
        raise AssertionError

    monkeypatch.setattr(engine._view, "look", breaks_once)
    engine.refresh()
    assert failed.is_set()
    told(engine)
    assert engine.usage().breaker_openings == {"refused": 0, "silent": 0}


class Broken(grpc.RpcError):  # type: ignore[misc]  # gRPC has no types
    """The exception that gRPC raises where a connection breaks."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "Socket closed"


def test_an_engine_over_a_triton_that_hangs_closes_soon(place: Place, connect: Connect) -> None:
    """Shutdown asks nothing of a server that is silent, however many regions it knows."""
    engine = connect(silence_s=1, leases=12)
    with ThreadPoolExecutor(12) as callers, held(place.timed) as begins:
        running = [callers.submit(told, engine) for _ in range(12)]
        eventually(lambda: engine.usage().pools[TIMED.name].in_use == 12)
        begins()
        place.timed.release("run")
        for one in running:
            one.result()
    place.triton.suspend()
    try:
        eventually(lambda: away(engine))
        started = time.monotonic()
        engine.close()
        assert time.monotonic() - started < 30  # the time for one question to it
    finally:
        place.triton.resume()
