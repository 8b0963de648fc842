"""CPU, throughput and latency of several ways to run the gateway, in turns on one Triton: ratios to the first.

    python -m benchmarks.processes.variants --variant 'a={python} {serve}' --variant 'b=/opt/b/bin/python {serve}'

A variant is a name and a command: another interpreter with the same packages, another server, another checkout
(`env -C FOLDER …`). `{serve}` stands for the arguments that serve the gateway, `{triton}`, `{port}` and `{repository}`
for single ones. Each round sends every case to every variant, so that what slows the machine slows all of them; ratios
are made round by round. Models compute next to nothing (`common/null_models.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import null_models
from benchmarks.common.cases import CASES, select
from benchmarks.common.environment import environment
from benchmarks.common.services import process, triton, wait_http
from benchmarks.speed.ratios import HIGHER_IS_BETTER, medians, ratios, spread_text
from benchmarks.speed.targets import Effort, HttpTarget, prepare, requests_of, take
from deploy.local.triton_server import free_ports

SERVE = "-m app.cli serve --variant n --triton-url {triton} --port {port} --repository {repository}"


@contextlib.contextmanager
def started(
    name: str, command: str, cases: Sequence[str], places: dict[str, Any], log: Path
) -> Iterator[HttpTarget]:
    """One variant, ready."""
    port = free_ports(1)[0]
    filled = shlex.split(command.replace("{serve}", SERVE).format(python=sys.executable, port=port, **places))
    with process(filled, log, {"GATEWAY_VIDEOS_FOLDER": ""}) as served:
        wait_http(served, port, "/readyz", log)
        yield HttpTarget(
            name, port, served, {case: requests_of(CASES[case], CASES[case].path) for case in cases}
        )


def measure(commands: dict[str, str], cases: Sequence[str], rounds: int, effort: Effort) -> dict[str, Any]:
    """Medians of every variant, and ratios of every other to the first."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        repository = null_models.build(folder / "models")
        server = stack.enter_context(triton(repository, folder / "triton.log"))
        places = {"triton": server.grpc_url, "repository": repository}
        targets = [
            stack.enter_context(started(name, command, cases, places, folder / f"{name}.log"))
            for name, command in commands.items()
        ]
        for target in targets:
            for case in cases:
                prepare(target, CASES[case], effort)
        taken: dict[str, dict[str, list[dict[str, float]]]] = {
            name: {c: [] for c in cases} for name in commands
        }
        for number in range(rounds):
            for case in cases:
                for target in targets if number % 2 else targets[::-1]:
                    taken[target.name][case].append(take(target, CASES[case], effort))
        where = environment(server.grpc_url, "http://127.0.0.1:9", {})
    first, *others = commands
    compared = {
        name: {figure: ratios(taken, name, first, figure) for figure in HIGHER_IS_BETTER} for name in others
    }
    return {
        "commands": commands,
        "environment": where,
        "medians": medians(taken),
        "least_cpu_ms": {
            name: {case: min(row["cpu_ms"] for row in rows) for case, rows in by_case.items()}
            for name, by_case in taken.items()
        },
        "ratios": compared,
    }


def report(found: dict[str, Any]) -> str:
    """The figures as lines for a terminal."""
    titles = f"{'requests/s':>11}{'CPU ms':>9}{'least':>9}{'p50 alone ms':>14}{'RSS MB':>8}"
    lines = [f"{'':28}{'variant':16}{titles}"]
    for name, cases in found["medians"].items():
        lines += [
            f"{case:28}{name:16}{row['rate']:11.1f}{row['cpu_ms']:9.2f}"
            f"{found['least_cpu_ms'][name][case]:9.2f}{row['p50_alone_ms']:14.2f}{row['rss_mb']:8.0f}"
            for case, row in cases.items()
        ]
    for name, figures in found["ratios"].items():
        for figure, cases in figures.items():
            lines += [f"{case:28}{name:16}{figure} {spread_text(ratio)}" for case, ratio in cases.items()]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write what was asked for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", action="append", required=True, metavar="NAME=COMMAND")
    parser.add_argument("--cases", default="detect_640x480,clip_image_1080p")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    commands = dict(variant.split("=", 1) for variant in options.variant)
    effort = Effort(options.seconds, options.seconds / 2, min(0.5, options.seconds / 2))
    found = measure(commands, select(options.cases), options.rounds, effort)
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
