"""The command line of `gateway compare`. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

import argparse

from app.commands.predict.families.arguments import positive, unit
from app.commands.predict.families.base import PICTURES
from app.commands.predict.options import add_gateway


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "Answer the same inputs by two versions of a branch, and print how the answers differ: boxes by their overlap, "
        "maps by their values, embeddings by their cosine, scenes by the five best. Exit code 0: done; 1: an input "
        "failed, or its difference is above --most; 2: the command or a setting is wrong, or nobody answers."
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"{PICTURES}; two by two for optical flow")
    parser.add_argument("--branch", required=True, help="name of the branch (`gateway branches` lists them)")
    parser.add_argument(
        "--versions", required=True, nargs=2, metavar=("N", "M"), help="the two versions, such as 1 2"
    )
    parser.add_argument(
        "--text", action="append", default=[], help="a text for a text branch; may be repeated"
    )
    parser.add_argument(
        "--most",
        type=unit,
        metavar="D",
        help="exit with 1 if the difference of an input is above this (0 to 1)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_gateway(parser)
    parser.add_argument(
        "--timeout", type=positive, default=60.0, metavar="SECONDS",
        help="time limit for the answer to one input (default 60)",
    )  # fmt: skip
    parser.set_defaults(jobs=None)
