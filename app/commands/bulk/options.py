"""Options of `gateway bulk`. Imports nothing that takes time: `gateway --help` reads them, too."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.commands.bulk import output_options
from app.commands.predict.families import arguments

RUN = "run"
EXECUTORS = ("local", "ray")
EXIT_CODES = (
    "Exit code 0: every video is done; 3: some could be decoded only in part; 1: some failed; 2: the command, a "
    "setting or the profile is wrong; 130: interrupted (run it again to resume)."
)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.description = EXIT_CODES
    parser.add_argument(
        "source", nargs="+",
        help="a video, a folder (searched recursively), a pattern in quotes ('cams/**/*.mp4'), s3://bucket/prefix, "
        "or a list: a .csv, .tsv or .parquet table with a column of paths or URIs, or a .txt file with one per line",
    )  # fmt: skip
    parser.add_argument("--profile", type=Path, required=True, help="a profile, see profiles/")
    parser.add_argument(
        "--output", required=True, metavar="URL", help="a folder or s3://bucket/prefix; run again to resume"
    )
    _add_choice(parser)
    _add_execution(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per video on stdout")
    parser.add_argument(
        "--metrics-port", type=arguments.count, metavar="PORT", help="serve Prometheus metrics of the run on this port"
    )  # fmt: skip
    parser.add_argument(
        "--no-tables", dest="tables", action="store_false", help="write no tables at the end; see `gateway bulk tables`"
    )  # fmt: skip
    parser.set_defaults(command=_run)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--relative-to", metavar="FOLDER",
        help="folder or s3:// prefix that names are relative to (default: the one that holds all sources)",
    )  # fmt: skip
    parser.add_argument(
        "--uri-column", metavar="NAME", help="column of tables with the videos (default: uri, path, …)"
    )
    parser.add_argument(
        "--id-column", metavar="NAME", help="column of tables with your own ids (default: id)"
    )
    parser.add_argument(
        "--sample", type=arguments.count, metavar="N", help="take N videos at random, always the same"
    )
    parser.add_argument("--shard", metavar="I/N", help="take the I-th of N parts, for job arrays: 1/8 to 8/8")
    parser.add_argument("--limit", type=arguments.count, metavar="N", help="take the first N videos")
    parser.add_argument(
        "--only", choices=("failed", "poison"),
        help="take videos that failed in earlier runs, or that killed their workers, and try these again",
    )  # fmt: skip
    parser.add_argument(
        "--force", action="store_true", help="process finished videos and those set aside again"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the videos and their names, and end")


def _add_execution(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on", choices=EXECUTORS, default="local", help="where the workers run (default: processes of this machine)"
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=arguments.count, metavar="N",
        help="videos at once (default: one per two cores, and on a cluster as many as there is room for)",
    )  # fmt: skip
    _add_ray(parser)
    parser.add_argument(
        "--engine", choices=("embedded", "triton"), help="engine that runs the models; overrides the profile"
    )  # fmt: skip
    parser.add_argument("--triton-url", help="host:port of Triton's gRPC service; implies --engine triton")
    parser.add_argument("--repository", type=Path, help="the model repository (GATEWAY_REPOSITORY)")


def _add_ray(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("on a Ray cluster (--on ray)")
    group.add_argument(
        "--address", metavar="HOST:PORT",
        help="the cluster; auto: the one that runs on this machine; local: one of its own (default: RAY_ADDRESS, or "
        "local)",
    )  # fmt: skip
    group.add_argument(
        "--worker-cpus", type=arguments.count, metavar="N", default=2, help="CPUs that a worker reserves (default: 2)"
    )  # fmt: skip
    group.add_argument(
        "--node-triton", action="store_true",
        help="have workers on nodes with Ray's custom resource triton, 1 each, use the Triton of their node",
    )  # fmt: skip


# Name -> help, and the function that adds its options. A source of one of these names is written ./NAME.
COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    RUN: ("run videos through a profile; the word may be left out", _add_run),
    "status": ("show what is done, failed and left", output_options.add_status),
    "tables": ("write what is finished into Parquet tables", output_options.add_tables),
    "report": ("write a page with plots, failures and models", output_options.add_report),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the commands of `gateway bulk`."""
    parser.description = (
        "`gateway bulk SOURCE… --profile P --output URL` runs videos; `gateway bulk run --help` lists its options."
    )  # fmt: skip
    commands: Any = parser.add_subparsers(required=True, metavar="SOURCE… | COMMAND")
    for name, (text, add) in COMMANDS.items():
        add(commands.add_parser(name, help=text))


def with_run(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of `gateway` with the word `run`, which may be left out after `bulk`."""
    given = list(arguments)
    if given[:1] == ["bulk"] and given[1:] and given[1] not in {*COMMANDS, "-h", "--help"}:
        given.insert(1, RUN)
    return given


def _run(parsed: argparse.Namespace) -> int:
    from app.commands.bulk.command import bulk  # noqa: PLC0415  # `gateway --help` needs none of it

    return bulk(parsed)
