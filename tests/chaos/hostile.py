"""Every hostile input that we know of, to a real gateway: its code, its milliseconds, and the gateway's peak memory.

    make chaos CHAOS=hostile    # prints the table, writes docs/benchmarks/hostile.json

The gateway runs with its usual limits but for 4 megapixels and 16 MB a body. Fails where an answer is a 5xx other than
the documented 503 and 504, isn't what the table expects, takes longer than 5 s, or moves memory by more than 300 MB
above the body's own size; and where the gateway doesn't serve a frame afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx2
import psutil
from support.models import repository as test_repository
from support.paths import ROOT
from support.servers.gateway import server

from tests.chaos.hostile_inputs import GOOD, Attack, attacks

SLOWEST_MS = 5000.0
MOST_MB = 300.0
LIMITS = {
    "max_pixels": 4_000_000, "max_body_bytes": 16_000_000, "request_timeout_s": 4, "idle_timeout_s": 2,
    "embedded_threads": 1, "max_jobs_waiting": 50,
}  # fmt: skip
RESULT = ROOT / "docs" / "benchmarks" / "hostile.json"


@dataclass(frozen=True, slots=True)
class Row:
    """One attack: what was answered, and what it cost."""

    name: str
    route: str
    sent_bytes: int
    status: int | str
    code: str
    ms: float
    peak_mb: float
    faults: list[str]


def raw(host: str, port: int, data: bytes, seconds: float = 6) -> tuple[int | str, bytes]:
    """Bytes as they are; the status of what comes back, `closed` where nothing does."""
    received = b""
    with socket.create_connection((host, port), timeout=seconds) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(data)
        with contextlib.suppress(OSError):
            while part := sock.recv(65536):
                received += part
                head, _, body = received.partition(b"\r\n\r\n")
                if b"content-length: %d" % len(body) in head.lower():
                    break
    status = received[9:12]
    return (int(status), received) if status.isdigit() else ("closed", received)


def send(http: httpx2.Client, attack: Attack) -> tuple[int | str, bytes]:
    base = http.base_url
    if attack.raw:
        return raw(base.host, base.port or 80, attack.body)
    try:
        answer = http.request(attack.method, attack.path, content=attack.body, headers=attack.headers)
    except httpx2.TransportError:  # cut off while it was still sending
        return "closed", b""
    return answer.status_code, answer.content


def code_of(answer: bytes) -> str:
    text = answer.partition(b"\r\n\r\n")[2] if answer.startswith(b"HTTP/") else answer
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text)["code"])
    return ""


def measure(http: httpx2.Client, process: psutil.Process, attack: Attack) -> Row:
    before = process.memory_info().rss
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak begins again (proc(5))
    started = time.perf_counter()
    status, answer = send(http, attack)
    ms = (time.perf_counter() - started) * 1000
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    moved = (peak - before) / 1e6
    return Row(
        attack.name, attack.path, len(attack.body), status, code_of(answer), round(ms, 1), round(moved, 1),
        list(faults(attack, status, ms, moved)),
    )  # fmt: skip


def faults(attack: Attack, status: int | str, ms: float, moved: float) -> Iterator[str]:
    if status not in attack.expected:
        yield f"answered {status}, expected {' or '.join(map(str, attack.expected))}"
    if isinstance(status, int) and status >= 500 and status not in (503, 504):
        yield f"a server error: {status}"
    if ms > SLOWEST_MS:
        yield f"{ms:.0f} ms"
    if moved > MOST_MB + 2 * len(attack.body) / 1e6:
        yield f"{moved:.0f} MB"


def run(result: Path) -> int:
    names = (*test_repository.DETECTORS, *test_repository.DEPTH, *test_repository.OTHERS)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        repository = test_repository.build(folder / "models", names)
        settings = {"videos_folder": folder / "videos", **LIMITS}
        with server(repository, folder / "gateway.log", **settings) as (http, pid):
            for _ in range(10):
                http.post("/v1/detect", content=GOOD).raise_for_status()
            rows = []
            for attack in attacks(folder):
                rows.append(measure(http, psutil.Process(pid), attack))
                alive = http.post("/v1/detect", content=GOOD)
                if alive.status_code != 200:
                    rows[-1].faults.append(f"then a good frame was answered {alive.status_code}")
    return report(rows, result)


def report(rows: list[Row], result: Path) -> int:
    print("| input | route | bytes | status | code | ms | peak MB |")
    print("|---|---|--:|--:|---|--:|--:|")
    for row in rows:
        cells = (
            row.name,
            row.route[:40],
            row.sent_bytes,
            row.status,
            row.code,
            row.ms,
            f"{row.peak_mb:+.1f}",
        )
        print("|", " | ".join(map(str, cells)), "|")
    bad = [row for row in rows if row.faults]
    summary = {
        "inputs": len(rows),
        "503 and 504": sum(isinstance(r.status, int) and r.status >= 500 for r in rows),
        "slowest_ms": max(row.ms for row in rows),
        "most_peak_mb": max(row.peak_mb for row in rows),
        "failed": len(bad),
    }
    print(json.dumps(summary, indent=1))
    result.write_text(
        json.dumps({"summary": summary, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
    )
    for row in bad:
        print(f"! {row.name}: {'; '.join(row.faults)}")
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=RESULT)
    return run(parser.parse_args().json)


if __name__ == "__main__":
    sys.exit(main())
