"""Growth of the rate with gateways and Tritons, as a ratio to linear.

    python -m benchmarks.scaling                                   # 1, 2 and 3 gateways over 1 and 2 Tritons
    python -m benchmarks.scaling --json docs/benchmarks/scaling.json

The model sleeps for a fixed time, so two cores are enough for what it stands for: GPUs that are busy. One gateway
keeps two runs in flight on each Triton, and each Triton has room for those of all gateways. So the rate would grow with
the product of gateways and Tritons if nothing else took time. Callers keep one request per gateway more in flight.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.common.cases import jpeg, request
from benchmarks.common.http_load import Load, ask, drive
from benchmarks.scaling.services import BRANCH, LEASES, SERVICE_S, Capacity, gateways, tritons

_WARM_UP = 4


def main() -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gateways", type=int, default=3, help="most of them")
    parser.add_argument("--tritons", type=int, default=2, help="most of them")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options.gateways, options.tritons, options.seconds)
    print(table(rows))
    if options.json:
        content = {"service_s": SERVICE_S, "leases": LEASES, "seconds": options.seconds, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(folder: Path, most_gateways: int, most_tritons: int, seconds: float) -> list[dict[str, Any]]:
    """Return one row per number of Tritons and gateways."""
    rows = []
    with tritons(folder, most_tritons, most_gateways * LEASES) as servers:
        for count in range(1, most_tritons + 1):
            urls = [server.grpc_url for server in servers[:count]]
            with gateways(folder, urls, most_gateways) as ports:
                rows += [_row(ports[:some], count, seconds) for some in range(1, most_gateways + 1)]
    first = rows[0]["per_s"]
    for row in rows:
        row["of_linear"] = round(row["per_s"] / (first * row["gateways"] * row["tritons"]), 3)
    return rows


def _row(ports: list[int], count: int, seconds: float) -> dict[str, Any]:
    capacity = Capacity(len(ports), count)
    picture = jpeg(320, 240, seed=0)
    content = request(f"/v1/detect?branch={BRANCH}", picture, {"Content-Type": "image/jpeg"})
    in_flight = count * LEASES + 1
    for port in ports:
        for _ in range(_WARM_UP):
            ask(port, content)
    with ThreadPoolExecutor(len(ports)) as threads:
        loads: list[Load] = list(threads.map(lambda port: drive(port, [content], in_flight, seconds), ports))
    return {
        "gateways": len(ports), "tritons": count, "per_s": round(sum(load.rate for load in loads), 2),
        "capacity_per_s": capacity.per_s,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| Tritons | gateways | requests/s | the model's limit | of linear |", "|--:|--:|--:|--:|--:|"]
    for row in rows:
        counts = (
            f"| {row['tritons']} | {row['gateways']} | {row['per_s']:.1f} | {row['capacity_per_s']:.0f} |"
        )
        lines.append(f"{counts} {row['of_linear']:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
