"""Measure branches: branch x policy x target, with errors as rows, kept on disk as it goes.

    python -m benchmarks.matrix                    # all that is READY on all that answers; the same as: gateway bench
    python -m benchmarks.matrix --branches 'midas_*' --targets gateway,triton_shm --policies seq,c4
    python -m benchmarks.matrix --resume                          # go on with the newest run
    python -m benchmarks.matrix --compare docs/benchmarks/run_bench.json    # exit code 1: something got slower

Exit code 0: measured (errors are rows); 1: --compare found a regression; 2: the command is wrong, or no target
answers; 130: interrupted (--resume goes on). See docs/benchmarks/README.md for what the numbers mean.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app import extras
from app.commands.smoke.http import key_headers
from app.settings import Settings
from benchmarks.common.environment import environment
from benchmarks.matrix.cells import Bench, Effort, reach
from benchmarks.matrix.load import OPEN_LOOP_CLIENTS
from benchmarks.matrix.plan import DEFAULT_POLICIES, POLICIES, TARGETS, Policy, policies, targets
from benchmarks.matrix.report import print_comparison
from benchmarks.matrix.results import Results, load
from benchmarks.matrix.targets import EngineTarget, GatewayTarget, JsonTarget, Target
from routing import catalogue as catalogues
from routing.catalogue import Catalogue

NEWEST = "newest"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; answers the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given)
    options.command = shlex.join(["python", "-m", "benchmarks.matrix", *given])
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s", stream=sys.stderr)
    said = extras.missing("bench") if options.plot else None
    if said is not None:
        print(f"bench: {said}", file=sys.stderr)
        return 2
    try:
        if options.compare and len(options.compare) == 2:
            before, after = (load(path) for path in options.compare)
            return print_comparison(before, after, options.tolerance)
        old = load(options.compare[0]) if options.compare else None
        folder = _folder(options)
        options.headers = key_headers(options.api_key_file)
        chosen, names = policies(options.policies), targets(options.targets)
    except (ValueError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    try:
        return _run(options, folder, chosen, names, old)
    except KeyboardInterrupt:
        print(f"bench: interrupted; go on with --resume {folder.name}", file=sys.stderr)
        return 130


def _run(
    options: argparse.Namespace, folder: Path, chosen: Sequence[Policy], names: Sequence[str], old: Any
) -> int:
    catalogue = catalogues.load()
    head = {
        "commands": [options.command],
        "note": options.note,
        "environment": environment(options.triton_url, options.gateway_url, options.headers),
        "repeats": options.repeats,
        "duration_s": options.duration,
    }
    results = Results(folder, head)
    patterns = [pattern.strip() for pattern in options.branches.split(",")]
    duration = options.duration or float("inf")
    effort = Effort(options.repeats, min(options.rounds, options.repeats), options.warm_up, duration)
    with contextlib.ExitStack() as stack:
        stack.callback(results.settle)
        reached = reach(_makers(options, catalogue, chosen, names), results)
        for one in reached:
            stack.callback(one.target.close)
        if not reached:
            print("bench: no target answers", file=sys.stderr)
            return 2
        Bench(catalogue, reached, effort, results).run(patterns, chosen)
    return _finish(options, results, old)


def _finish(options: argparse.Namespace, results: Results, old: Any) -> int:
    print(f"{results.summary_path}: {len(results.rows)} rows")
    if options.plot:
        from benchmarks.matrix.plot import plot  # noqa: PLC0415  # an extra: matplotlib

        plot(results.document(), results.folder / "summary.png")
    if old is None:
        return 0
    return print_comparison(old, results.document(), options.tolerance)


def _makers(
    options: argparse.Namespace, catalogue: Catalogue, chosen: Sequence[Policy], names: Sequence[str]
) -> list[tuple[str, Callable[[], Target]]]:
    """Return a maker per target; the engines are the service's own, from its settings."""
    shared: dict[str, Any] = {
        "repository": options.repository,
        "manifest": options.manifest,
        "triton_url": options.triton_url,
        "models": options.branches,
        "leases": max(options.leases, *(policy.in_flight for policy in chosen)),
        "max_waiting": OPEN_LOOP_CLIENTS,
        "warmup": False,  # every cell has its own, and what isn't measured needn't run
    }

    def engine(name: str, **settings: Any) -> Target:
        given = {key: value for key, value in {**shared, **settings}.items() if value is not None}
        return EngineTarget(name, Settings(**given), catalogue, options.timeout)

    def over_json() -> Target:
        known = Settings(
            **{key: shared[key] for key in ("repository", "manifest") if shared[key] is not None}
        )
        return JsonTarget(options.triton_http_url, known, catalogue, options.timeout)

    triton = functools.partial(engine, engine="triton")
    makers: dict[str, Callable[[], Target]] = {
        "gateway": lambda: GatewayTarget(options.gateway_url, options.timeout, options.headers),
        "triton_grpc": lambda: triton("triton_grpc", triton_transport="bytes"),
        "triton_shm": lambda: triton("triton_shm", triton_transport="shared_memory"),
        "triton_json": over_json,
        "embedded": lambda: engine("embedded", engine="embedded"),
    }
    return [(name, makers[name]) for name in names]


def _folder(options: argparse.Namespace) -> Path:
    """Return the folder of the run: a new one, or the one that is resumed."""
    out: Path = options.out
    if options.resume is None:
        folder = out / (options.run_id or time.strftime("bench-%Y%m%dT%H%M%S"))
        if (folder / "summary.json").exists():
            raise ValueError(f"{folder} is there already; --resume {folder.name} goes on with it")
        return folder
    runs = sorted(out.glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
    if options.resume != NEWEST:
        runs = [path for path in runs if path.parent.name == options.resume]
    if not runs:
        raise ValueError(f"there is no run to resume in {out}")
    return runs[-1].parent


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--branches",
        default="*",
        help="shell patterns; of a branch named whole that isn't READY, an error row",
    )
    what.add_argument("--targets", default=",".join(TARGETS), help=f"of {','.join(TARGETS)} (default: all)")
    what.add_argument(
        "--policies", default=DEFAULT_POLICIES, help=f"{POLICIES} (default: {DEFAULT_POLICIES})"
    )
    effort = parser.add_argument_group("how long")
    effort.add_argument("--repeats", type=_count, default=30, help="requests a cell (default 30)")
    effort.add_argument(
        "--duration", type=_seconds, metavar="SECONDS", help="a cell at most; n says the repeats"
    )
    effort.add_argument(
        "--rounds", type=_count, default=3, help="parts of a cell, targets by turns (default 3)"
    )
    effort.add_argument(
        "--warm-up", type=_count, default=3, help="requests before the first round (default 3)"
    )
    effort.add_argument("--timeout", type=_seconds, default=60.0, help="one request, in seconds (default 60)")
    where = parser.add_argument_group("where")
    where.add_argument("--gateway-url", default="http://127.0.0.1:8080")
    where.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="the gateway's API key, if it wants one"
    )
    where.add_argument("--triton-url", default="127.0.0.1:8001", help="gRPC")
    where.add_argument("--triton-http-url", default="http://127.0.0.1:8000")
    where.add_argument("--repository", type=Path, help="for embedded, and for digests (GATEWAY_REPOSITORY)")
    where.add_argument("--manifest", type=Path, help="for digests (GATEWAY_MANIFEST)")
    where.add_argument(
        "--leases", type=_count, default=4, help="tensor sets a branch of the engines here (default 4)"
    )
    kept = parser.add_argument_group("what is kept")
    kept.add_argument("--out", type=Path, default=Path("out"), help="OUT/<run_id>/ (default out)")
    kept.add_argument("--run-id", help="default: bench-<time>")
    kept.add_argument(
        "--resume", nargs="?", const=NEWEST, metavar="RUN_ID", help="go on with a run (the newest)"
    )
    kept.add_argument("--note", default="", help="words that the summary carries")
    kept.add_argument("--plot", action="store_true", help="also summary.png (pip install '.[bench]')")
    parser.add_argument(
        "--compare", type=Path, nargs="+", action=_OneOrTwo, metavar="SUMMARY",
        help="OLD: compare this run with it; OLD NEW: compare these two and measure nothing",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=_seconds, default=0.1, help="of a ratio, see --compare (default 0.1)"
    )
    return parser


class _OneOrTwo(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        if len(values) > 2:
            parser.error(f"{option_string} takes one file or two")
        setattr(namespace, self.dest, values)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("a number from 1")
    return count


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("a positive number")
    return value


if __name__ == "__main__":
    sys.exit(main())
