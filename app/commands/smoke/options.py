"""The command line of `gateway smoke`. Imports nothing heavy: `gateway --help` reads it too."""

from __future__ import annotations

import argparse
from pathlib import Path

from app.commands.predict.families.arguments import number

EXIT_CODES = (
    "A branch is required if /readyz waits for it. Exit code 0: all required branches work; 1: a required one fails "
    "(with --strict, also an optional one); 2: the server can't be reached, or the command or a setting is wrong."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--triton-url",
        help="a Triton server: host:port of its gRPC service, or http://host:port (GATEWAY_TRITON_URL)",
    )
    where.add_argument("--url", help="a gateway: http://host:port")
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE",
        help="the gateway's API key, with the scopes infer and operate; - reads standard input",
    )  # fmt: skip
    parser.add_argument("--operate-url", help="the gateway's separate port, if it serves /livez and /readyz")
    parser.add_argument(
        "--variant", help="detection variant of the checklist (a gateway uses its own; default x)"
    )
    parser.add_argument(
        "--require", metavar="PATTERNS",
        help="branches of a Triton that must be READY, separated by commas; checklist: the required ones of the READY "
        "checklist (default: GATEWAY_REQUIRE_READY; a gateway uses its own)",
    )  # fmt: skip
    parser.add_argument(
        "--branches",
        default="*",
        help="infer only these: shell patterns, separated by commas (default: all READY)",
    )
    parser.add_argument(
        "--transport",
        choices=("auto", "shared_memory", "bytes"),
        help="transport of tensors over gRPC (default: auto)",
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=30.0, metavar="SECONDS",
        help="time limit for one answer (default 30); at most 5 for server metadata",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="fail on broken optional branches, too")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout instead of the table"
    )


def _seconds(text: str) -> float:
    seconds = number(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("a time must be positive")
    return seconds
