"""Offered load at three times the capacity: goodput stays, the admitted are answered in time, the rest refused at once.

    .venv/bin/python tests/chaos/overload.py --seconds 120

Needs a real detector (`make models SET=starter`), so that the model is what limits and not the sender. First the peak:
more and more clients, one request after another. Then a fixed rate of three times that peak, each request at its own
time whether or not those before it were answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from common import ROOT, client, percentile
from support.triton_server import free_ports

import httpx2

PICTURE = (ROOT / "docs" / "astronaut.jpg").read_bytes()
ROUTE = "/v1/detect?branch=320"


@contextlib.contextmanager
def gateway(port: int, log: Path) -> object:
    environment = {
        **os.environ, "GATEWAY_VARIANT": "n", "GATEWAY_MODELS": "yolo11n_320", "GATEWAY_VIDEOS_FOLDER": "",
        "GATEWAY_LEASES": "2", "GATEWAY_EMBEDDED_THREADS": "1", "GATEWAY_MAX_WAITING": "16",
    }  # fmt: skip
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port)]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


class Counts:
    def __init__(self) -> None:
        self.status: Counter[int] = Counter()
        self.good_ms: list[float] = []
        self.refused_ms: list[float] = []
        self.livez_ms: list[float] = []
        self.retry_after: Counter[str] = Counter()

    async def one(self, http: httpx2.AsyncClient) -> None:
        started = time.perf_counter()
        response = await http.post(ROUTE, content=PICTURE)
        ms = (time.perf_counter() - started) * 1000
        self.status[response.status_code] += 1
        if response.status_code == 200:
            self.good_ms.append(ms)
        elif response.status_code == 429:
            self.refused_ms.append(ms)
            self.retry_after[response.headers["retry-after"]] += 1

    async def livez(self, http: httpx2.AsyncClient, stop: asyncio.Event) -> None:
        while not stop.is_set():
            started = time.perf_counter()
            (await http.get("/livez")).raise_for_status()
            self.livez_ms.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(0.1)


async def closed(http: httpx2.AsyncClient, clients: int, seconds: float) -> float:
    """Right answers a second with so many clients, one request after another each."""
    counts, limit = Counts(), time.monotonic() + seconds

    async def send() -> None:
        while time.monotonic() < limit:
            await counts.one(http)

    await asyncio.gather(*(send() for _ in range(clients)))
    return counts.status[200] / seconds


async def opened(http: httpx2.AsyncClient, rate: float, seconds: float) -> Counts:
    """So many requests a second, at their own times."""
    counts, stop = Counts(), asyncio.Event()
    health = asyncio.create_task(counts.livez(http, stop))
    began, tasks = time.monotonic(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(counts.one(http)))
    await asyncio.gather(*tasks)
    stop.set()
    await health
    return counts


async def run(seconds: float) -> int:
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder, gateway(port, Path(folder) / "log"):
        async with client(f"http://127.0.0.1:{port}", 512) as http:
            for _ in range(600):
                with contextlib.suppress(httpx2.TransportError):
                    if (await http.get("/readyz")).status_code == 200:
                        break
                await asyncio.sleep(0.1)
            await closed(http, 4, 2)
            peaks = {clients: round(await closed(http, clients, 5), 1) for clients in (1, 2, 4, 8, 12)}
            peak = max(peaks.values())
            counts = await opened(http, 3 * peak, seconds)
    goodput = counts.status[200] / seconds
    rows = {
        "peak, right answers a second by clients": peaks,
        "offered a second": round(3 * peak, 1),
        "goodput a second": round(goodput, 1),
        "goodput / peak": round(goodput / peak, 3),
        "statuses": dict(counts.status),
        "admitted ms p50, p99": [round(percentile(counts.good_ms, share), 1) for share in (50, 99)],
        "refused ms p50, p99": [round(percentile(counts.refused_ms, share), 1) for share in (50, 99)],
        "livez ms p50, p99, max": [round(percentile(counts.livez_ms, share), 1) for share in (50, 99, 100)],
        "retry-after": dict(counts.retry_after),
    }
    print(json.dumps(rows, indent=1))
    return 0 if goodput > 0.9 * peak and set(counts.status) <= {200, 429} else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120)
    return asyncio.run(run(parser.parse_args().seconds))


if __name__ == "__main__":
    sys.exit(main())
