"""A gateway and its Triton under a little load, and a bulk run, watched by a Prometheus; all of them are real."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.common.traffic import Traffic
from benchmarks.dashboards.bulk_run import bulk_run
from deploy.local.triton_server import TritonServer
from support.analysis import patches
from support.servers.gateway import server
from support.servers.programs import program
from support.servers.prometheus_server import PrometheusServer
from support.servers.receiver import receiving

LOAD_SECONDS = 6  # several scrapes and evaluations of the rules, one a second
ROUNDS = 24  # the rarest request, the deletion of a job, comes with each fourth round from the thirteenth on


class Observed(NamedTuple):
    """The Prometheus, a moment under load, and an interval that holds all of the load until then."""

    prometheus: PrometheusServer
    at: float
    interval: str


@contextlib.contextmanager
def observed(repository: Path, folder: Path) -> Iterator[Observed]:
    """After some seconds of load on every route, while everything still runs."""
    program("prometheus")
    film = patches(folder / "video.mp4")
    with (
        TritonServer(repository, folder / "triton.log") as triton,
        server(
            repository, folder / "gateway.log", engine="triton", triton_url=triton.grpc_url,
            videos_folder=folder / "videos", require_ready="yolo11n_320",
            webhook_hosts="127.0.0.1", allowed_networks="127.0.0.1", webhook_secret="whsec_" + "QUJD" * 8,
        ) as (http, _),
        bulk_run(folder / "bulk", film, repository, folder / "prometheus"),
        receiving() as receiver,
        PrometheusServer(
            folder / "prometheus", http.base_url.netloc.decode(), _host(triton.metrics_url)
        ) as prometheus,
    ):  # fmt: skip
        began = time.time()
        traffic = Traffic(http, film.read_bytes(), callback_url=receiver.url)
        traffic.run(LOAD_SECONDS, at_least=ROUNDS)
        if traffic.failed:
            raise RuntimeError("\n".join(traffic.failed[:5]))
        at = time.time()
        yield Observed(prometheus, at, f"{math.ceil(at - began) + 4}s")


def _host(url: str) -> str:
    return url.removeprefix("http://").removesuffix("/metrics")
