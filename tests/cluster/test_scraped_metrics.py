"""Two gateways that share their stores, scraped by a Prometheus: sums over them count everything once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.analysis import patches
from support.databases.postgres import PostgresServer
from support.servers.gateway import png, scene, server
from support.servers.prometheus_server import PrometheusServer
from support.servers.redis_server import RedisServer
from support.waiting import PATIENCE_S, eventually

from app.keys.access import ApiKey, Rate, digest_of, entry, new_key

KEYS = {name: new_key() for name in ("camera", "limited", "prometheus")}
BURST = 6
BODY = png(scene(320, 320, (1, 64, 96, 32)))


def _entries() -> str:
    scopes = {"prometheus": frozenset({"operate"})}
    rates = {"limited": Rate(0.001, BURST)}
    return ";".join(
        entry(ApiKey(name, digest_of(key.encode()), scopes.get(name, frozenset({"infer"})), rates.get(name)))
        for name, key in KEYS.items()
    )


def _headers(name: str) -> dict[str, str]:
    return {"X-API-Key": KEYS[name]}


@pytest.fixture
def pair(all_families: Path, tmp_path: Path) -> Iterator[list[httpx2.Client]]:
    """Gateways with one PostgreSQL, one folder of artefacts and one Redis."""
    with PostgresServer() as postgres, RedisServer(tmp_path / "redis") as store:
        shared: dict[str, Any] = {
            "api_keys": _entries(), "session_store": store.url, "job_store": postgres.database(),
            "job_artifacts": tmp_path / "artefacts", "embedded_threads": 1,
        }  # fmt: skip
        with (
            server(all_families, tmp_path / "one.log", videos_folder=tmp_path / "one", **shared) as (one, _),
            server(all_families, tmp_path / "other.log", videos_folder=tmp_path / "other", **shared) as (
                other,
                _,
            ),
        ):
            yield [one, other]


def _number(prometheus: PrometheusServer, expression: str) -> float:
    """The value of the only series; NaN without one."""
    series = prometheus.query(expression)
    assert len(series) <= 1, series
    return float(series[0]["value"][1]) if series else float("nan")


def test_sums_over_gateways_count_everything_once(pair: list[httpx2.Client], tmp_path: Path) -> None:
    """Requests of all, jobs of a store once, and one limit of a key; the documented queries give these numbers."""
    for gateway in (*pair, pair[0]):
        assert (
            gateway.post("/v1/detect?variant=n", content=BODY, headers=_headers("camera")).status_code == 200
        )
    limited = [
        gateway.get("/v1/branches", headers=_headers("limited")) for _ in range(BURST) for gateway in pair
    ]
    assert [answer.status_code for answer in limited] == [200] * BURST + [429] * BURST
    video = patches(tmp_path / "video.mp4", 12).read_bytes()
    profile = "components: {core_object_detections: {variant: n}}\n"
    for gateway in (*pair, pair[0]):
        parts = {"file": ("v.mp4", video), "profile": (None, profile)}
        assert gateway.post("/v1/videos", files=parts, headers=_headers("camera")).status_code == 202

    def done() -> bool:
        listed = pair[1].get("/v1/videos", headers=_headers("camera")).json()["videos"]
        return [row["state"] for row in listed] == ["done"] * 3

    eventually(done)
    targets = [gateway.base_url.netloc.decode() for gateway in pair]
    expected = {
        "sum by (state) (max by (store, state) (gateway_video_jobs{state='done'}))": 3,
        "sum by (state) (store_state:gateway_video_jobs:max{state='done'})": 3,
        "sum(gateway_video_jobs{state='done'})": 6,  # each gateway reports the store's
        "sum(gateway_requests_total{route='/v1/detect'})": 3,
        "sum(gateway_video_frames_total{route='job'})": 36,
        "sum(gateway_key_requests_total{key_name='limited', judgement='admitted'})": BURST,
        "min(gateway_model_ready{model='yolo11n_320'})": 1,
        "count(gateway_build_info)": 2,
    }
    with PrometheusServer(
        tmp_path / "prometheus", targets[0], "127.0.0.1:1", more=targets[1:], key=KEYS["prometheus"]
    ) as prometheus:
        found: dict[str, float] = {}

        def agreed() -> bool:
            found.update((expression, _number(prometheus, expression)) for expression in expected)
            return found == expected

        try:
            eventually(agreed, PATIENCE_S)
        except AssertionError:
            assert found == expected
