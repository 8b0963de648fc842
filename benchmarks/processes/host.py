"""The page about workers: what was measured, and what follows from it for a host with more cores and a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

CORES, GPU_CORES, LOAD = 16, 2, 0.8
HEAD = """\
# Workers

```sh
python -m benchmarks.processes.workers --write                # about 4 minutes: workers.json and this page
python -m benchmarks.processes.workers --write --py-spy PATH  # with the interpreter's lock
```

`--workers N` starts N complete services behind one port. This page shows the growth of throughput with N. Models
compute next to nothing on a real Triton, 8 requests are in flight, and gateways with 1, 2 and 4 workers are measured in
turns on the same machine. With one core, the gateway has that core to itself, and Triton and the client run on the
other. With two cores, all three share both, so the gateway gets less than two. All rates are medians.
"""


ASSUMED = f"""\
Nothing here was measured on such a host. {GPU_CORES} cores are left to Triton and the system, the others are busy
for {LOAD:.0%} of the time:

- requests/s = {CORES - GPU_CORES} x {LOAD:g} x 1000 / (CPU ms per request, one worker on one core);
- a worker's limit = 1000 / (ms for which a request holds the interpreter's lock, sampled with py-spy);
- workers = requests/s / ({LOAD:g} x a worker's limit), rounded up; memory = workers x MB of a worker.

The memory bandwidth of the host and the time of real models are not in it.
"""


def page(found: dict[str, Any]) -> str:
    """The whole of workers.md."""
    at = found["environment"]
    load = f"load average at the end {at['load_average'][0]:.1f}"
    where = f"{at['cpu']}, {at['cpu_count']} cores, Python {at['python']}, {load}."
    parts = [HEAD, where, "\n## Measured\n", *_rates(found), "", *_memory(found)]
    parts += [f"\n## Computed: a host with {CORES} cores and a GPU\n", *_host(found)]
    return "\n".join(parts) + "\n"


def _rates(found: dict[str, Any]) -> Iterator[str]:
    yield "| case | cores | workers | requests/s (least to greatest) | of one worker | CPU per request, ms | p50, ms |"
    yield "|---|---|---|---|---|---|---|"
    ones = {(row["case"], row["cores"]): row["rate"] for row in found["rows"] if row["workers"] == 1}
    for row in found["rows"]:
        ratio = row["rate"] / ones[row["case"], row["cores"]]
        spread = f"{row['rate']:.0f} ({row['rate_least']:.0f} to {row['rate_greatest']:.0f})"
        yield (
            f"| {row['case']} | {row['cores']} | {row['workers']} | {spread} | {ratio:.2f} | "
            f"{row['cpu_ms']:.2f} | {row['p50_ms']:.1f} |"
        )


def _memory(found: dict[str, Any]) -> Iterator[str]:
    yield "| workers | a worker, MB without shared tensors (private) | the parent, MB |"
    yield "|---|---|---|"
    for count, row in found["memory"].items():
        yield f"| {count} | {row['worker_mb']:.0f} ({row['worker_private_mb']:.0f}) | {row['parent_mb']:.0f} |"


def _host(found: dict[str, Any]) -> Iterator[str]:
    """The sum, from the CPU per request of one worker on one core."""
    cores = CORES - GPU_CORES
    yield ASSUMED
    titles = (
        "CPU ms",
        "lock ms",
        "requests/s of the CPU",
        "a worker's limit, requests/s",
        "workers",
        "memory, MB",
    )
    yield f"| case | {' | '.join(titles)} |"
    yield "|---|---|---|---|---|---|---|"
    memory = max(row["worker_mb"] for row in found["memory"].values())
    for row in found["rows"]:
        if (row["cores"], row["workers"]) != (1, 1):
            continue
        rate = cores * LOAD * 1000 / row["cpu_ms"]
        lock = found["gil_ms"].get(row["case"])
        if lock is None:
            yield f"| {row['case']} | {row['cpu_ms']:.2f} | not sampled | {rate:.0f} | | | |"
            continue
        limit = 1000 / lock
        workers = math.ceil(round(rate / (LOAD * limit), 6))
        yield (
            f"| {row['case']} | {row['cpu_ms']:.2f} | {lock:.2f} | {rate:.0f} | {limit:.0f} | {workers} | "
            f"{workers * memory:.0f} |"
        )
