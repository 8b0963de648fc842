"""The command line of `gateway verify`. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "Check that every file of every manifest below OUTPUT exists with its SHA-256, and that the models at hand are "
        "those that made it. Files that no manifest lists are shown. Exit code 0: all is well; 1: a file is missing or "
        "differs, or a model does; 2: the command or a setting is wrong, or there is no manifest; 130: interrupted."
    )
    parser.add_argument(
        "output", metavar="OUTPUT", help="output of `gateway analyze` or `gateway bulk`: a folder or s3://…"
    )
    models = parser.add_mutually_exclusive_group()
    models.add_argument(
        "--repository", type=Path, metavar="DIR",
        help="the folder of the models to compare with (GATEWAY_REPOSITORY; default: that of `make run`)",
    )  # fmt: skip
    models.add_argument(
        "--triton-url", metavar="HOST:PORT", help="compare with the models of this Triton instead"
    )
    models.add_argument("--files-only", action="store_true", help="don't compare models")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 also for files that no manifest lists"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per manifest on stdout")
