"""Stores of sessions: bounded in memory, shared in Redis, refused for workers that share nothing."""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from support.servers.gateway import client, png, scene, server
from support.servers.redis_server import RedisServer
from support.waiting import PATIENCE_S

from app.main import create_session_store
from app.metrics import Metrics
from app.settings import Settings
from app.state.memory import MemoryStore

BODY = png(scene(320, 320, (1, 64, 96, 32), (2, 224, 32, 32)))


def post(gateway: Any, session: str = "a", query: str = "") -> Any:
    return gateway.post(f"/v1/detect?session={session}{query}", content=BODY)


def ids(answered: Any) -> list[int]:
    """Track ids of the frame, ascending; -1 for a box that has none."""
    assert answered.status_code == 200, answered.text
    tracks = (row["track_id"] for row in answered.json()["detections"])
    return sorted(-1 if track is None else track for track in tracks)


def problem(answered: Any, status: int, code: str) -> dict[str, Any]:
    document: dict[str, Any] = answered.json()
    assert (answered.status_code, document.get("code")) == (status, code), answered.text
    return document


def metrics(gateway: TestClient) -> dict[str, float]:
    families = text_string_to_metric_families(gateway.get("/metrics").text)
    return {
        ":".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        if "session" in family.name
        for sample in family.samples
    }


def test_an_idle_session_ends_and_is_counted(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After GATEWAY_SESSION_TTL_S it is unknown; the next frame begins a new one, which its answer says."""
    ahead = [0.0]
    monkeypatch.setattr(
        "app.main.MemoryStore",
        functools.partial(MemoryStore, clock=lambda: time.monotonic() + ahead[0]),
    )
    with client(repository, session_ttl_s=60) as gateway:
        ids(post(gateway, query="&timestamp=5"))
        assert metrics(gateway)["gateway_sessions_live"] == 1
        ahead[0] += 60
        counted = metrics(gateway)
        assert counted["gateway_sessions_live"] == 0
        assert counted["gateway_session_evictions_total:ttl"] == 1
        problem(gateway.get("/v1/sessions/a"), 404, "session_not_found")
        answered = post(gateway, query="&timestamp=1")
        assert (ids(answered), answered.json()["session"]["frame"]) == ([1, 2], 1)


def test_the_number_of_sessions_is_bounded_and_counted(repository: Path) -> None:
    """With GATEWAY_MAX_SESSIONS of them the one that is idle for longest makes room."""
    with client(repository, max_sessions=2) as gateway:
        for session in "abac":
            ids(post(gateway, session))
        counted = metrics(gateway)
        assert counted["gateway_sessions_live"] == 2
        assert counted["gateway_session_evictions_total:lru"] == 1
        assert [gateway.get(f"/v1/sessions/{session}").status_code for session in "abc"] == [200, 404, 200]


def test_no_label_is_a_caller_s_word(repository: Path) -> None:
    """A thousand sessions make no thousand time series."""
    with client(repository) as gateway:
        ids(post(gateway, "camera-in-the-hall"))
        post(gateway, "camera-in-the-hall", "&conf=0.5")
        assert metrics(gateway)["gateway_session_conflicts_total:parameters"] == 1
        assert "camera-in-the-hall" not in gateway.get("/metrics").text


def test_several_workers_without_redis_refuse_sessions(repository: Path) -> None:
    """At once, with the setting that helps; everything else is served."""
    with client(repository, workers=2) as gateway:
        for answered in (post(gateway), gateway.get("/v1/sessions/a"), gateway.delete("/v1/sessions/a")):
            document = problem(answered, 503, "sessions_unavailable")
            assert "GATEWAY_SESSION_STORE" in document["detail"]
            assert "redis://" in document["what_to_do"]
        assert gateway.post("/v1/detect", content=BODY).status_code == 200
        assert gateway.get("/readyz").status_code == 200


@pytest.fixture
def pair(repository: Path, redis_server: RedisServer) -> Iterator[list[TestClient]]:
    """Two gateways with one Redis, each as one of several workers."""
    shared: dict[str, Any] = {"session_store": redis_server.url, "workers": 2}
    with client(repository, **shared) as first, client(repository, **shared) as second:
        yield [first, second]


def test_a_session_goes_on_in_any_worker(pair: list[TestClient]) -> None:
    """Frames to one and the other in turn: one tracker; looked at and reset from either."""
    for at in range(6):
        answered = post(pair[at % 2], query=f"&timestamp={at}")
        assert ids(answered) == [1, 2]
        assert answered.json()["session"]["frame"] == at + 1
    assert pair[0].get("/v1/sessions/a").json() == pair[1].get("/v1/sessions/a").json()
    problem(post(pair[1], query="&timestamp=2"), 409, "session_conflict")
    problem(post(pair[1], query="&timestamp=9&conf=0.5"), 409, "session_conflict")
    assert pair[1].delete("/v1/sessions/a").status_code == 204
    problem(pair[0].get("/v1/sessions/a"), 404, "session_not_found")


def test_no_frame_is_lost_between_workers(pair: list[TestClient]) -> None:
    """Sixty posts to two workers, eight at a time: each counts once, and no id comes twice."""
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: post(pair[number % 2]), range(60)))
    for answered in answers:
        assert ids(answered) == [1, 2]
    frames = sorted(answered.json()["session"]["frame"] for answered in answers)
    assert frames == list(range(1, 61))
    times = {answered.json()["session"]["timestamp"] for answered in answers}
    assert len(times) == 60
    document = pair[0].get("/v1/sessions/a").json()
    assert (document["frames"], len(document["tracks"])) == (60, 2)


def test_of_frames_out_of_order_between_workers_each_is_tracked_or_refused(pair: list[TestClient]) -> None:
    """With timestamps the tracker has only ascending ones: what lost its place is a conflict, nothing is lost."""
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda number: post(pair[number % 2], query=f"&timestamp={number}"), range(40))
        )
    assert {answered.status_code for answered in answers} <= {200, 409}
    taken = [answered.json()["session"] for answered in answers if answered.status_code == 200]
    assert [row["frame"] for row in taken] == list(range(1, len(taken) + 1))
    assert pair[1].get("/v1/sessions/a").json()["frames"] == len(taken) > 1


def test_redis_away_is_a_503_and_back_the_service_goes_on(
    repository: Path, redis_server: RedisServer
) -> None:
    """Killed in the middle of a session: refused soon, with Retry-After; frames without a session are served."""
    with client(repository, session_store=redis_server.url) as gateway:
        ids(post(gateway, query="&timestamp=1"))
        redis_server.kill()
        started = time.monotonic()
        answered = post(gateway, query="&timestamp=2")
        assert time.monotonic() - started < PATIENCE_S / 2
        problem(answered, 503, "sessions_unavailable")
        assert int(answered.headers["retry-after"]) >= 1
        problem(gateway.get("/v1/sessions/a"), 503, "sessions_unavailable")
        assert gateway.post("/v1/detect", content=BODY).status_code == 200
        redis_server.start()
        assert post(gateway, query="&timestamp=2").json()["session"]["frame"] == 1


def test_redis_that_hangs_is_a_503(repository: Path, redis_server: RedisServer) -> None:
    """Its sockets stay open and nothing comes back: bounded, and over with it."""
    with client(repository, session_store=redis_server.url) as gateway:
        ids(post(gateway, query="&timestamp=1"))
        redis_server.suspend()
        started = time.monotonic()
        problem(post(gateway, query="&timestamp=2"), 503, "sessions_unavailable")
        assert time.monotonic() - started < PATIENCE_S / 2
        redis_server.resume()
        assert post(gateway, query="&timestamp=3").json()["session"]["frame"] == 2


def test_a_password_is_never_logged(
    repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither at start nor with an error; the place is."""
    caplog.set_level(logging.DEBUG)
    with RedisServer(tmp_path, password="open-sesame") as server:  # noqa: S106  # of a server that lives for one test
        with client(repository, session_store=server.url) as gateway:
            assert ids(post(gateway)) == [1, 2]
            server.kill()
            document = problem(post(gateway), 503, "sessions_unavailable")
        assert f"***@127.0.0.1:{server.port}" in document["detail"]
        assert "open-sesame" not in str(document) + caplog.text


def test_processes_of_their_own_share_a_session(
    repository: Path, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Two real servers; a reader of either sees the frames of both."""
    store = {"session_store": redis_server.url, "workers": 2}
    with (
        server(repository, tmp_path / "first.log", **store) as (first, _),
        server(repository, tmp_path / "second.log", **store) as (second, _),
        ThreadPoolExecutor(4) as threads,
    ):
        answers = list(threads.map(lambda number: post((first, second)[number % 2]), range(24)))
        assert sorted(answered.json()["session"]["frame"] for answered in answers) == list(range(1, 25))
        assert first.get("/v1/sessions/a").json()["frames"] == 24


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memcached://:se/cret@host:1", "redis://"),
        ("Redis", "redis://"),
        ("", "redis://"),
        ("redis://:se/cret@host:port", "percent-encoded"),
    ],
)
def test_a_store_that_can_t_be_is_refused_at_start(url: str, words: str) -> None:
    """The refusal names the possible stores, and no secret."""
    with pytest.raises((RuntimeError, ValueError), match=words) as caught:
        create_session_store(Settings(session_store=url), Metrics())
    assert "cret" not in str(caught.value).replace("secret", "")
    assert caught.value.__cause__ is None


def test_a_missing_client_of_redis_is_said_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is an extra: how to get it."""
    for name in [name for name in sys.modules if name.startswith("app.state.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(RuntimeError, match=r"pip install '\.\[redis\]'"):
        create_session_store(Settings(session_store="redis://host"), Metrics())
