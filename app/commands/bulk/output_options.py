"""Options of the commands that read the output of a bulk run. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_status(parser: argparse.ArgumentParser) -> None:
    """Options of `gateway bulk status`."""
    parser.description = (
        "Show what is done, failed and left, also while the run goes on. "
        "Exit code 0: shown; 2: there is no such output, or it can't be read."
    )
    _add_output(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_status)


def add_report(parser: argparse.ArgumentParser) -> None:
    """Options of `gateway bulk report`."""
    parser.description = (
        "Write one HTML file with plots, failures, slowest videos and models; it needs no network. "
        "Exit code 0: written; 2: there is no such output, it can't be read, or the file can't be written."
    )
    _add_output(parser)
    parser.add_argument(
        "--to", type=Path, default=Path("bulk-report.html"), metavar="FILE",
        help="file to write, replaced if it exists (default: bulk-report.html)",
    )  # fmt: skip
    parser.set_defaults(command=_report)


def add_tables(parser: argparse.ArgumentParser) -> None:
    """Options of `gateway bulk tables`."""
    parser.description = (
        "Bring index.parquet and tables/ up to date with what is finished, also while the run goes on. "
        "Exit code 0: all finished videos are in the tables; 1: some could not be taken; 2: there is no such output, "
        "it can't be read or written, or another process writes the tables; 130: interrupted."
    )
    _add_output(parser)
    parser.add_argument(
        "--part-size",
        type=_megabytes,
        default=256,
        metavar="MB",
        help="length of one file, about (default 256)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_tables)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "output", metavar="OUTPUT", help="output of `gateway bulk`: a folder or s3://bucket/prefix"
    )


def _megabytes(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 65536")
    return int(text)


def _status(parsed: argparse.Namespace) -> int:
    from app.commands.bulk.status import status  # noqa: PLC0415  # `gateway --help` needs none of it

    return status(parsed)


def _report(parsed: argparse.Namespace) -> int:
    from app.commands.bulk.report import report  # noqa: PLC0415  # as above

    return report(parsed)


def _tables(parsed: argparse.Namespace) -> int:
    from app.commands.bulk.tables import tables  # noqa: PLC0415  # as above

    return tables(parsed)
