"""Command lines of the commands that answer files. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from app.commands.parser import Parser
from app.commands.predict.families.arguments import count, not_negative, positive
from app.commands.predict.families.base import FamilyCommand

EXIT_CODES = (
    "Exit code 0: every input was answered; 1: some input failed; 2: the command, a setting or a key is wrong, there "
    "is no input, or --url can't be reached; 130: interrupted; 141: the reader closed the output; "
    "143: ended by SIGTERM."
)


class FilesParser(Parser):
    """A parser whose options may stand before, between and after its files."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As the base class does; what it leaves over and is no option is a file, and so is all after `--`."""
        words = list(args or ())
        at = words.index("--") if "--" in words else len(words)
        parsed, extra = super().parse_known_args(words[:at], namespace)
        files = [word for word in extra if word == "-" or not word.startswith("-")]
        parsed.files = [*parsed.files, *files, *words[at + 1 :]]
        return parsed, [word for word in extra if word not in files]


def add_commands(
    parsers: Any, commands: Iterable[FamilyCommand], run: Callable[[argparse.Namespace], int]
) -> None:
    """Add these commands; `run` is called with the parsed line, whose `predict` is the `FamilyCommand`."""
    parsers_class = parsers._parser_class  # noqa: SLF001  # argparse has no other way to give one parser a class
    parsers._parser_class = FilesParser  # noqa: SLF001
    try:
        for command in commands:
            words = command.help
            parser = parsers.add_parser(
                command.name, help=words, description=f"{words[0].upper()}{words[1:]}. {EXIT_CODES}"
            )
            parser.add_argument("files", nargs="*", metavar="FILE", help=command.files)
            command.add_options(parser)
            _add_common(parser)
            parser.set_defaults(command=run, predict=command)
    finally:
        parsers._parser_class = parsers_class  # noqa: SLF001


def add_gateway(parser: argparse.ArgumentParser) -> None:
    """Add options for the source of answers: a gateway's URL, or a folder of models for this process."""
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--url",
        help="use this gateway, such as http://127.0.0.1:8080; without it, the models run in this process",
    )
    who.add_argument(
        "--repository", type=Path, metavar="DIR",
        help="the folder of models that run in this process (GATEWAY_REPOSITORY; default: that of `make run`)",
    )  # fmt: skip
    parser.add_argument(
        "--cacert",
        type=Path,
        metavar="FILE",
        help="CA certificates (PEM) that verify an https:// gateway",
    )
    key = parser.add_mutually_exclusive_group()
    key.add_argument(
        "--key",
        help="the gateway's API key; prefer GATEWAY_KEY, because other users may see the command line",
    )
    key.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="file that contains the key; - reads standard input"
    )


def add_branches(parser: argparse.ArgumentParser) -> None:
    """Options of `gateway branches`."""
    parser.description = (
        "List the branches with tier, size, variant (* marks the default), state and weights. "
        "Exit code 0: listed; 2: the gateway can't be reached, or there is no folder of models."
    )
    add_gateway(parser)
    parser.add_argument("--all", action="store_true", help="also list missing branches")
    parser.add_argument("--json", action="store_true", help="print the answer of GET /v1/branches")
    parser.add_argument(
        "--timeout", type=positive, default=10.0, metavar="SECONDS", help="longest wait (default 10)"
    )


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Options of `gateway doctor`."""
    parser.description = (
        "Check the installation, models, servers and folders, and suggest fixes. "
        "Exit code 0: all checks that the settings need pass; 1: one fails; 2: the command or a setting is wrong."
    )
    add_gateway(parser)
    parser.add_argument("--quick", action="store_true", help="don't read the models to compare their digests")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--branch", help="use this branch: its name, a tier (small, medium, large) or a size in pixels"
    )
    parser.add_argument(
        "--model-version", metavar="N", help="use this version of the branch (`gateway branches` lists them)"
    )
    parser.add_argument(
        "--fallback", action="store_true", help="take the next smaller branch if this one can't serve"
    )
    parser.add_argument(
        "--save", type=Path, metavar="DIR",
        help="write the full answer to NAME.<command>.json, and pictures and arrays next to it",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier --save")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per line on stdout instead of the table"
    )
    add_gateway(parser)
    parser.add_argument(
        "--timeout", type=positive, default=60.0, metavar="SECONDS",
        help="time limit for the answer to one input or one frame of a video (default 60)",
    )  # fmt: skip
    parser.add_argument(
        "--wait", type=not_negative, default=60.0, metavar="SECONDS",
        help="longest total wait per input for a busy gateway that sends Retry-After (default 60)",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=count, metavar="N", help="inputs processed at once (default: 4 with --url, else 2)"
    )
