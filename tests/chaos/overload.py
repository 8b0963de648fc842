"""Offered load at three times the capacity: goodput stays, the admitted are answered in time, the rest refused at once.

    make chaos CHAOS=overload CHAOS_ARGS='--seconds 120'
    make chaos CHAOS=overload CHAOS_ARGS='--seconds 120 --engine embedded'

A real Triton whose detector takes 10 ms a run and no core, as a GPU does; or, `embedded`, a real YOLO11n
(`make models SET=starter`) that competes with gateway and sender for the same cores. First the peak: more and more
clients, one request after another. Then a fixed rate of three times that peak, each request at its own time whether or
not those before it were answered; its milliseconds count from that time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.models import repository as test_repository
from support.models.timed import Timed
from support.paths import ROOT

from deploy.local.triton_server import TritonServer
from tests.chaos.common import percentile
from tests.chaos.service import Service

PICTURE = (ROOT / "docs" / "astronaut.jpg").read_bytes()
MODEL, RUN_S = "yolo11n_320", 0.01
CONNECTIONS = 256
_HEAD = "POST /v1/detect?branch=320 HTTP/1.1\r\nHost: gateway\r\nContent-Length: {}\r\n\r\n"
REQUEST = _HEAD.format(len(PICTURE)).encode() + PICTURE
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n"


@contextlib.contextmanager
def gateway(engine: str, folder: Path) -> Iterator[Service]:
    """Two leases, sixteen places to wait."""
    settings = {"leases": 2, "max_waiting": 16, "videos_folder": "", "require_ready": MODEL}
    with contextlib.ExitStack() as stack:
        if engine == "triton":
            repository = test_repository.build(folder / "models", [MODEL])
            Timed(repository, MODEL).takes(RUN_S)
            server = stack.enter_context(TritonServer(repository, folder / "triton.log", load=[MODEL]))
            service = Service(server.grpc_url, folder, **settings)
        else:
            own = {
                "engine": "embedded",
                "repository": "triton/models",
                "models": MODEL,
                "embedded_threads": 1,
            }
            service = Service("127.0.0.1:1", folder, **settings, **own)
        service.start()
        try:
            asyncio.run(service.until_ready())
            yield service
        finally:
            service.stop()


class Connection:
    """One connection that stays open; opened again if the server has closed it. Costs the sender 0.1 ms per request."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.opened = 0

    async def ask(self, request: bytes) -> tuple[int, str]:
        """The status, and Retry-After; once more where an idle connection was closed (RFC 9112, 9.3.1)."""
        if self._streams is not None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                return await self._ask(request)
            self.close()
        return await self._ask(request)

    async def _ask(self, request: bytes) -> tuple[int, str]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            self.opened += 1
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        await reader.readexactly(int(fields["content-length"]))
        if fields.get("connection") == "close":
            self.close()
        return int(head[9:12]), fields.get("retry-after", "")

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Counts:
    status: Counter[int] = field(default_factory=Counter)
    good_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    livez_ms: list[float] = field(default_factory=list)
    retry_after: Counter[str] = field(default_factory=Counter)

    async def one(self, connection: Connection, due: float) -> None:
        status, retry_after = await connection.ask(REQUEST)
        ms = (time.perf_counter() - due) * 1000
        self.status[status] += 1
        if status == 200:
            self.good_ms.append(ms)
        elif status == 429:
            self.refused_ms.append(ms)
            self.retry_after[retry_after] += 1

    async def livez(self, port: int, stop: asyncio.Event) -> None:
        connection = Connection(port)
        while not stop.is_set():
            started = time.perf_counter()
            assert (await connection.ask(LIVEZ))[0] == 200
            self.livez_ms.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(0.1)
        connection.close()


async def closed(port: int, clients: int, seconds: float) -> float:
    """Right answers a second with so many clients, one request after another each."""
    counts, limit = Counts(), time.monotonic() + seconds

    async def send() -> None:
        connection = Connection(port)
        while time.monotonic() < limit:
            await counts.one(connection, time.perf_counter())
        connection.close()

    await asyncio.gather(*(send() for _ in range(clients)))
    return counts.status[200] / seconds


async def opened(port: int, rate: float, seconds: float) -> tuple[Counts, int]:
    """Send so many requests per second at their own times; return also the number of connections."""
    counts, stop = Counts(), asyncio.Event()
    health = asyncio.create_task(counts.livez(port, stop))
    free = [Connection(port) for _ in range(CONNECTIONS)]
    everyone = list(free)
    began, tasks = time.perf_counter(), []

    async def send(due: float) -> None:
        connection = free.pop()  # the least busy sender has more than the gateway admits
        await counts.one(connection, due)
        free.append(connection)

    for number in range(int(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(send(due)))
    await asyncio.gather(*tasks)
    stop.set()
    await health
    for connection in everyone:
        connection.close()
    return counts, sum(connection.opened for connection in everyone)


async def attack(port: int, seconds: float) -> int:
    await closed(port, 4, 2)
    peaks = {clients: round(await closed(port, clients, 5), 1) for clients in (1, 2, 4, 8, 16)}
    peak = max(peaks.values())
    counts, connections = await opened(port, 3 * peak, seconds)
    goodput = counts.status[200] / seconds
    refused = [round(percentile(counts.refused_ms, share), 1) for share in (50, 99, 100)]
    livez = [round(percentile(counts.livez_ms, share), 1) for share in (50, 99, 100)]
    rows = {
        "peak, right answers a second by clients": peaks,
        "offered a second": round(3 * peak, 1),
        "goodput a second": round(goodput, 1),
        "goodput / peak": round(goodput / peak, 3),
        "statuses": dict(counts.status),
        "admitted ms p50, p99, max": [round(percentile(counts.good_ms, share), 1) for share in (50, 99, 100)],
        "refused ms p50, p99, max": refused,
        "livez ms p50, p99, max": livez,
        "retry-after": dict(counts.retry_after),
        "connections": connections,
    }
    print(json.dumps(rows, indent=1))
    kept = goodput > 0.9 * peak and set(counts.status) <= {200, 429}
    return 0 if kept and refused[1] < 10 and livez[1] < 50 else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--engine", choices=("triton", "embedded"), default="triton")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, gateway(options.engine, Path(name)) as service:
        return asyncio.run(attack(service.port, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
