"""`/readyz` while an optional model loads, comes and goes, or hangs: on a real Triton, and the embedded engine."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient
from support.models import repository as test_repository
from support.models.endless import endless
from support.models.timed import Timed
from support.servers.gateway import client, png, scene
from support.waiting import eventually

from app.engine import warmup
from deploy.local.triton_server import TritonServer

STEADY, OPTIONAL, OTHER = "yolo11n_320", "yolo11n_640", "midas_256"
BODY = png(scene(320, 320, (1, 64, 96, 32)))


class Probes:
    """Asks /readyz and for boxes all the time; `answers` are the statuses of both."""

    def __init__(self, gateway: TestClient) -> None:
        self.answers: list[tuple[int, int]] = []
        self._gateway = gateway
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Probes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def more(self, count: int = 15) -> None:
        """Return once so many more answers are there."""
        wanted = len(self.answers) + count
        eventually(lambda: len(self.answers) >= wanted)

    def _ask(self) -> None:
        while not self._stop.is_set():
            boxes = self._gateway.post(f"/v1/detect?branch={STEADY}", content=BODY).status_code
            self.answers.append((self._gateway.get("/readyz").status_code, boxes))


def readiness(gateway: TestClient, name: str) -> str:
    families = gateway.get("/v1/branches").json()["families"]
    found: str = next(b["readiness"] for family in families for b in family["branches"] if b["name"] == name)
    return found


def control(server: TritonServer, name: str, what: str) -> None:
    """Load or unload a model, as an operator does; returns once that is done."""
    url = f"{server.http_url}/v2/repository/models/{name}/{what}"
    assert httpx2.post(url, json={}, timeout=120).status_code == 200


@contextlib.contextmanager
def controlling(server: TritonServer, name: str, what: str) -> Iterator[None]:
    thread = threading.Thread(target=control, args=(server, name, what))
    thread.start()
    yield
    thread.join()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return test_repository.build(tmp_path_factory.mktemp("models"), [STEADY, OPTIONAL, OTHER])


@pytest.fixture(scope="module")
def optional(models: Path) -> Timed:
    """A model that loads and runs as long as a test wants."""
    return Timed(models, OPTIONAL)


@pytest.fixture
def server(models: Path, optional: Timed, tmp_path: Path) -> Iterator[TritonServer]:
    """A Triton that serves one branch; its models are controlled from outside."""
    with TritonServer(models, tmp_path / "triton.log", load=[STEADY]) as running:
        yield running


def over(
    server: TritonServer, models: Path, **settings: Any
) -> contextlib.AbstractContextManager[TestClient]:
    """A gateway over it, which has been green once."""
    return client(models, engine="triton", triton_url=server.grpc_url, **settings)


@pytest.mark.triton
def test_an_optional_model_that_loads_reddens_and_delays_nothing(
    server: TritonServer, models: Path, optional: Timed
) -> None:
    """While Triton loads it every probe is green, and a gateway that starts meanwhile becomes green."""
    with over(server, models) as gateway, Probes(gateway) as probes:
        with optional.held("load"), controlling(server, OPTIONAL, "load"):
            eventually(lambda: readiness(gateway, OPTIONAL) == "loading")
            probes.more()
            with over(server, models) as second:
                assert readiness(second, OPTIONAL) == "loading"
            optional.release("load")
        eventually(lambda: readiness(gateway, OPTIONAL) == "ready")
    assert set(probes.answers) == {(200, 200)}


@pytest.mark.triton
def test_an_operator_who_loads_and_unloads_one_reddens_nothing(
    server: TritonServer, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten times: every probe is green, and the log gets few lines about it."""
    with over(server, models) as gateway:
        caplog.clear()
        with Probes(gateway) as probes:
            for _ in range(10):
                control(server, OPTIONAL, "load")
                probes.more(2)
                control(server, OPTIONAL, "unload")
    assert set(probes.answers) == {(200, 200)}
    assert len([r for r in caplog.records if r.name.startswith("app.engine.warmup")]) <= 4


@pytest.mark.triton
def test_a_first_run_that_hangs_delays_no_other_branch(
    server: TritonServer, models: Path, optional: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it hangs every probe is green, another branch is loaded, run and served, and a second gateway starts."""
    monkeypatch.setattr(warmup, "PATIENCE_S", 0.5)
    with over(server, models) as gateway, optional.held("run"):
        with Probes(gateway) as probes:
            control(server, OPTIONAL, "load")
            eventually(lambda: readiness(gateway, OPTIONAL) == "loading")
            control(server, OTHER, "load")
            eventually(lambda: readiness(gateway, OTHER) == "ready")
            with over(server, models) as second:
                assert readiness(second, STEADY) == "ready"
                assert readiness(second, OPTIONAL) == "loading"
            probes.more()
        assert readiness(gateway, OPTIONAL) == "loading"
        optional.release("run")
    assert set(probes.answers) == {(200, 200)}


@pytest.mark.triton
def test_a_required_branch_that_is_unloaded_turns_it_red(server: TritonServer, models: Path) -> None:
    """And green again once it is back; boxes of another branch go on."""
    control(server, OPTIONAL, "load")
    with over(server, models, require_ready=OPTIONAL) as gateway:
        control(server, OPTIONAL, "unload")
        eventually(lambda: gateway.get("/readyz").status_code == 503)
        assert [row["name"] for row in gateway.get("/readyz").json()["failing"]] == [OPTIONAL]
        assert gateway.post(f"/v1/detect?branch={STEADY}", content=BODY).status_code == 200
        control(server, OPTIONAL, "load")
        eventually(lambda: gateway.get("/readyz").status_code == 200)


def test_the_embedded_engine_s_first_runs_delay_nobody_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a branch whose first run never ends the others become ready, the probe green, and closing is not held up."""
    monkeypatch.setattr(warmup, "PATIENCE_S", 0.5)
    models = test_repository.build(tmp_path, [STEADY, OPTIONAL, OTHER])
    endless(models, OPTIONAL)
    with client(models, warmup_timeout_s=3600.0) as gateway:
        with Probes(gateway) as probes:
            eventually(lambda: readiness(gateway, OTHER) == "ready")
            probes.more()
        assert readiness(gateway, OPTIONAL) == "loading"
        refused = gateway.post(f"/v1/detect?branch={OPTIONAL}", content=BODY)
        assert (refused.status_code, refused.json()["code"]) == (503, "model_not_ready")
        assert refused.headers["retry-after"] == "2"
        assert set(probes.answers) == {(200, 200)}
    eventually(lambda: not any(t.name.startswith("first-run-") for t in threading.enumerate()))
