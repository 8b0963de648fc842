"""Real gateways over a real Triton are stopped, stopped twice, and killed: what is left, and who is hurt."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from support import videos
from support.paths import ROOT
from support.servers.gateway import png, scene
from support.waiting import PATIENCE_S

from deploy.local.triton_server import TritonServer, free_ports

pytestmark = pytest.mark.triton

BODY = png(scene(320, 320, (1, 64, 96, 32)))
SHM = Path("/dev/shm")  # where regions are
PROFILE = "name: some\ncomponents: {core_object_detections: {track: {}}}\n"


class Process:
    """`gateway serve` over a Triton, with a port of its own; it may be killed in every way."""

    def __init__(self, triton: TritonServer, repository: Path, folder: Path, **settings: object) -> None:
        self.port = free_ports(1)[0]
        self.log = folder / f"gateway-{self.port}.log"
        given = {
            "engine": "triton", "triton_url": triton.grpc_url, "repository": repository, "port": self.port,
            "triton_transport": "shared_memory", "variant": "n", "videos_folder": "", "warmup": False, **settings,
        }  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        environment |= {f"GATEWAY_{name.upper()}": str(value) for name, value in given.items()}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve"],
                cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S)

    def detect(self, **how: Any) -> httpx2.Response:
        return self.http.post("/v1/detect?branch=320", content=BODY, **how)

    def until_ready(self) -> Process:
        _until(lambda: self.http.get("/readyz").status_code == 200, PATIENCE_S, self.log)
        assert self.detect().status_code == 200
        return self

    def regions(self) -> set[str]:
        """Return the regions of the host's shared memory that this gateway and its workers map."""
        family = [
            psutil.Process(self.process.pid),
            *psutil.Process(self.process.pid).children(recursive=True),
        ]
        maps = "".join(Path(f"/proc/{member.pid}/maps").read_text() for member in family)
        return {Path(line.split()[5]).name for line in maps.splitlines() if "/dev/shm/triton-gateway" in line}

    def end(self) -> None:
        self.http.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


Make = Callable[..., Process]


def _until(true: Callable[[], bool], seconds: float, log: Path) -> None:
    limit = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx2.TransportError):
            if true():
                return
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.02)


def _refused(port: int) -> bool:
    """True once nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def _registered(triton: TritonServer) -> set[str]:
    rows = httpx2.get(f"{triton.http_url}/v2/systemsharedmemory/status", timeout=PATIENCE_S).json()
    return {row["name"] for row in rows}


@pytest.fixture
def make(triton: TritonServer, repository: Path, tmp_path: Path) -> Iterator[Make]:
    """Makes gateways, and ends what is left of them; afterwards nothing of theirs is in shared memory or in Triton."""
    made: list[Process] = []

    def started(**settings: object) -> Process:
        server = settings.pop("over", triton)
        assert isinstance(server, TritonServer)
        made.append(Process(server, repository, tmp_path, **settings))
        return made[-1]

    yield started
    for process in made:
        process.end()


def _nothing_left(triton: TritonServer, regions: set[str], cut_off: int = 0) -> None:
    """Nothing is in shared memory; Triton has none of the regions, except those of so many runs that were cut off."""
    assert regions
    assert not [name for name in regions if (SHM / name).exists()]
    assert not [name for name in regions if (SHM / f"{name.rpartition('-')[0]}.lock").exists()]
    assert len(regions & _registered(triton)) <= cut_off


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_finishes_what_is_under_way(triton: TritonServer, make: Make, workers: int) -> None:
    """Requests that came before SIGTERM are answered, no connection is taken after it, the exit code is 0, and no
    region is left in shared memory or in Triton, nor a claim on any.
    """
    gateway = make(workers=workers, session_store="memory").until_ready()
    regions = gateway.regions()
    locks = {
        path for path in SHM.glob("triton-gateway-*.lock") if any(r.startswith(path.stem) for r in regions)
    }
    answers: list[int | str] = []
    told = threading.Event()

    def slow() -> None:
        def body() -> Iterator[bytes]:
            yield BODY[:100]
            told.wait(PATIENCE_S)
            yield BODY[100:]

        with httpx2.Client(base_url=gateway.http.base_url, timeout=PATIENCE_S) as own:
            try:
                answers.append(own.post("/v1/detect?branch=320", content=body()).status_code)
            except httpx2.TransportError as error:
                answers.append(repr(error))

    threads = [threading.Thread(target=slow) for _ in range(4)]
    for thread in threads:
        thread.start()
    under_way = 'gateway_requests_in_flight{route="/v1/detect"} 4'
    _until(lambda: under_way in gateway.http.get("/metrics").text, PATIENCE_S, gateway.log)
    gateway.process.terminate()
    _until(lambda: _refused(gateway.port), PATIENCE_S, gateway.log)
    told.set()
    for thread in threads:
        thread.join()
    assert answers == [200] * 4
    assert gateway.process.wait(PATIENCE_S) == 0, gateway.log.read_text()
    _nothing_left(triton, regions)
    assert not [path for path in locks if path.exists()]


def test_a_request_that_outlives_its_time_is_told(triton: TritonServer, make: Make) -> None:
    """A request still running when the time after SIGTERM is over is answered 503 `shutting_down`, never 500."""
    gateway = make(session_store="memory", shutdown_timeout_s=1).until_ready()
    caller = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_S)
    caller.putrequest("POST", "/v1/detect?branch=320")
    caller.putheader("Content-Length", str(len(BODY)))
    caller.endheaders(BODY[:100])
    under_way = 'gateway_requests_in_flight{route="/v1/detect"} 1'
    _until(lambda: under_way in gateway.http.get("/metrics").text, PATIENCE_S, gateway.log)
    gateway.process.terminate()
    answer = caller.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (503, "shutting_down")
    assert answer.headers["Retry-After"] == "1"
    assert gateway.process.wait(PATIENCE_S) == 0, gateway.log.read_text()
    assert "Traceback" not in gateway.log.read_text()


def test_a_stop_ends_a_stream_and_hands_a_job_back(triton: TritonServer, make: Make, tmp_path: Path) -> None:
    """A job that ran is `queued` on disk, and the next process finishes it, without doing again what is done."""
    settings = {"videos_folder": tmp_path / "videos", "shutdown_timeout_s": 1}
    gateway = make(**settings).until_ready()
    video = videos.count(tmp_path / "long.mp4", 600).read_bytes()
    taken = gateway.http.post("/v1/videos", files={"file": ("v.mp4", video)}, data={"profile": PROFILE})
    assert taken.status_code == 202, taken.text
    job = f"/v1/videos/{taken.json()['id']}"
    _until(lambda: gateway.http.get(job).json()["frames"] > 20, PATIENCE_S, gateway.log)
    regions = gateway.regions()
    headers = {"content-type": "video/mp4"}
    with gateway.http.stream("POST", "/v1/detect?every=1", content=video, headers=headers) as stream:
        assert stream.status_code == 200
        gateway.process.terminate()
        with contextlib.suppress(httpx2.TransportError):
            stream.read()
    assert gateway.process.wait(PATIENCE_S) == 0, gateway.log.read_text()
    _nothing_left(triton, regions, cut_off=2)
    following = make(**settings).until_ready()
    _until(lambda: following.http.get(job).json()["state"] == "done", PATIENCE_S, following.log)
    view = following.http.get(job).json()
    assert (view["frames"], view["manifest"]["frames"]["sampled"]) == (600, 600)


@pytest.mark.parametrize("how", ["twice", "in time"])
def test_a_triton_that_hangs_can_t_hold_the_process(
    repository: Path, make: Make, tmp_path: Path, how: str
) -> None:
    """A suspended Triton, a request in it: a second SIGTERM ends the gateway at once, and without one the limit does
    (one second and a half after the requests' time); its regions are gone from shared memory.
    """
    with TritonServer(repository, tmp_path / "triton.log", load=["yolo11n_320"]) as own:
        gateway = make(over=own, shutdown_timeout_s=10 * PATIENCE_S if how == "twice" else 1).until_ready()
        regions = gateway.regions()
        own.suspend()
        threading.Thread(target=_quietly, args=(gateway.detect,), daemon=True).start()
        under_way = 'gateway_requests_in_flight{route="/v1/detect"} 1'
        with httpx2.Client(base_url=gateway.http.base_url, timeout=PATIENCE_S) as beside:
            _until(lambda: under_way in beside.get("/metrics").text, PATIENCE_S, gateway.log)
        gateway.process.terminate()
        if how == "twice":
            _until(lambda: _refused(gateway.port), PATIENCE_S, gateway.log)
            gateway.process.terminate()
        code = gateway.process.wait(PATIENCE_S)  # and not the minutes that Triton hangs
        assert code in ((1,) if how == "twice" else (0, 1)), gateway.log.read_text()
        assert regions
        assert not [name for name in regions if (SHM / name).exists()]
        own.resume()


def _quietly(send: Callable[[], object]) -> None:
    with contextlib.suppress(httpx2.TransportError):
        send()


def test_a_second_gateway_is_never_touched(triton: TritonServer, make: Make) -> None:
    """While others start, stop and are killed beside it, its regions stay and every frame is answered;
    what a killed one left is gone after the next start, in shared memory and in Triton.
    """
    kept = make().until_ready()
    mine = kept.regions()
    failed: list[str] = []
    stop = threading.Event()

    def load() -> None:
        with httpx2.Client(base_url=kept.http.base_url, timeout=PATIENCE_S) as own:
            while not stop.is_set():
                answer = own.post("/v1/detect?branch=320", content=BODY)
                if answer.status_code != 200:
                    failed.append(answer.text[:300])

    thread = threading.Thread(target=load)
    thread.start()
    try:
        stopped = make().until_ready()
        gone = stopped.regions()
        stopped.process.terminate()
        assert stopped.process.wait(PATIENCE_S) == 0
        _nothing_left(triton, gone)
        killed = make().until_ready()
        left = killed.regions()
        killed.process.kill()
        killed.process.wait()
        assert left <= _registered(triton)
        following = make().until_ready()
        _until(lambda: not left & _registered(triton), PATIENCE_S, following.log)
        _nothing_left(triton, left)
    finally:
        stop.set()
        thread.join()
    assert failed == []
    assert mine <= kept.regions()
    assert mine <= _registered(triton)


def test_workers_stop_when_their_parent_is_killed(triton: TritonServer, make: Make) -> None:
    """Nobody would start them again, and they would hold the port: they finish, and leave nothing behind."""
    gateway = make(workers=2, shutdown_timeout_s=2).until_ready()
    regions = gateway.regions()
    workers = psutil.Process(gateway.process.pid).children(recursive=True)
    gateway.process.kill()
    gateway.process.wait()
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
    assert not alive
    _nothing_left(triton, regions)
