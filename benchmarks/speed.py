"""The gateway beside the limit, the barest ASGI app and what people use today, in one run.

    make bench-speed                                     # everything: docs/benchmarks/speed.json and speed.md
    python benchmarks/speed.py --targets limit,bare,ours --rounds 5
    python benchmarks/speed.py --list

Models compute next to nothing (`null_models.py`) on a real Triton. Rounds are interleaved: in each one every case is
asked of every target, so that what slows the machine slows all of them. Ratios are made round by round; given are their
medians, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import null_models
from speed_cases import CASES, MAIN
from speed_ratios import HIGHER_IS_BETTER, medians, ratios
from speed_targets import Effort, Target, bare, limit, ours, prepare, take
from stand import triton

ESSENTIAL = ("limit", "bare", "ours")
Measured = dict[str, dict[str, list[dict[str, float]]]]


def main() -> int:
    """Measure, print, and write what was asked for."""
    options = _options()
    figures = run(options.targets.split(","), options.cases.split(","), options.rounds, _effort(options))
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", default=",".join(ESSENTIAL))
    parser.add_argument("--cases", default=",".join(MAIN), help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a round with 4 requests in flight")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def _effort(options: argparse.Namespace) -> Effort:
    return Effort(options.seconds, options.seconds / 2)


def run(targets: Sequence[str], cases: Sequence[str], rounds: int, effort: Effort) -> dict[str, Any]:
    """The figures of all rounds."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        repository = null_models.build(folder / "models")
        server = stack.enter_context(triton(repository, folder / "triton.log"))
        standing = [stack.enter_context(_start(t, server.grpc_url, folder)) for t in targets]
        measured = measure(standing, cases, rounds, effort)
    return {
        "rounds": measured,
        "medians": medians(measured),
        "ratios": {
            f"{of} / {to}": {figure: ratios(measured, of, to, figure) for figure in HIGHER_IS_BETTER}
            for of, to in (("ours", "limit"), ("bare", "limit"), ("ours", "bare"))
        },
    }


def _start(name: str, triton_grpc: str, folder: Path) -> contextlib.AbstractContextManager[Target]:
    log = folder / f"{name}.log"
    if name == "limit":
        return limit(triton_grpc, log)
    if name == "bare":
        return bare(triton_grpc, log)
    return ours(triton_grpc, log, folder / "models")


def measure(targets: Sequence[Target], cases: Sequence[str], rounds: int, effort: Effort) -> Measured:
    for target in targets:
        for case in cases:
            prepare(target, CASES[case], effort)
    measured: Measured = {target.name: {case: [] for case in cases} for target in targets}
    for number in range(rounds):
        for case in cases:
            for target in targets if number % 2 else reversed(targets):
                measured[target.name][case].append(take(target, CASES[case], effort))
    return measured


def table(figures: dict[str, Any]) -> str:
    """Medians for people."""
    lines = [
        f"{'':16}{'target':10}{'requests/s':>12}{'p50 alone ms':>14}{'CPU ms':>9}{'client ms':>11}{'RSS MB':>8}"
    ]
    for target, cases in figures["medians"].items():
        for case, row in cases.items():
            lines.append(
                f"{case:16}{target:10}{row['rate']:12.1f}{row['p50_alone_ms']:14.2f}{row['cpu_ms']:9.2f}"
                f"{row['client_cpu_ms']:11.2f}{row['rss_mb']:8.0f}"
            )
    for pair, by_figure in figures["ratios"].items():
        for case, ratio in by_figure["rate"].items():
            lines.append(
                f"{case:16}{pair:16}{ratio['median']:6.2f} ({ratio['least']:.2f} to {ratio['greatest']:.2f})"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
