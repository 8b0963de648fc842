"""Options of `gateway plan`."""

from __future__ import annotations

import argparse
from pathlib import Path

from app.commands.predict.families.arguments import count
from routing.units import parse_size

FORMATS = ("table", "json", "triton-args", "names")
EPILOG = """\
formats:
  table        for people
  json         every number in bytes
  triton-args  --load-model=… for each branch that fits, for tritonserver and `make triton`
  names        the branches that fit, one per line

exit codes: 0: every required branch fits; 1: one doesn't, or no branch does; 2: the command line or a setting is wrong
"""


def memory(text: str) -> int:
    """An amount of memory, for argparse."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def share(text: str) -> float:
    """A percentage below 100, for argparse."""
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent < 100:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: a percentage from 0 to below 100, such as 10")
    return percent / 100


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser of its own."""
    parser.description = (
        "Estimate the memory of each branch, and choose those that fit: required ones first, then tier by tier. "
        "Nothing is loaded. docs/memory.md explains the estimates."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--memory",
        type=memory,
        metavar="SIZE",
        help="memory of the device, such as 6GiB (default: the first GPU's, or the machine's)",
    )
    parser.add_argument(
        "--branches",
        metavar="NAMES",
        help="branches to choose from: shell patterns, separated by commas (default: the built ones of the default "
        "variants)",
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="device of the models (default cuda)"
    )
    parser.add_argument(
        "--instances", type=count, default=1, metavar="N",
        help="instances of each model; with --device cpu, inferences at once (default 1)",
    )  # fmt: skip
    parser.add_argument(
        "--reserve", type=memory, metavar="SIZE",
        help="memory for CUDA, its libraries and other programs (default 640MiB; with --device cpu 320MiB)",
    )  # fmt: skip
    parser.add_argument(
        "--margin",
        type=share,
        default=0.1,
        metavar="PERCENT",
        help="share of the memory that stays free (default 10)",
    )
    parser.add_argument("--repository", type=Path, help="the model repository (GATEWAY_REPOSITORY)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--format", choices=FORMATS, default="table", help="form of the output, see below")
    form.add_argument(
        "--json", action="store_const", const="json", dest="format", help="the same as --format json"
    )
