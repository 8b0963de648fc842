"""Command lines of `gateway detect`, `depth`, `flow`, `places`, `embed`. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.commands.parser import Parser

EXIT_CODES = (
    "Exit code 0: every input was answered; 1: some input failed; 2: the command, a setting or a key is wrong, there "
    "is no input, or --url can't be reached; 130: interrupted; 141: the reader closed the output; "
    "143: ended by SIGTERM."
)
_PICTURES = "pictures (JPEG, PNG, WebP, BMP), folders (searched recursively), patterns such as 'in/*.jpg', or - (stdin)"
_WORDS = {
    "detect": ("find objects in pictures and videos", f"{_PICTURES}; videos (MP4, MOV, Matroska, WebM, AVI) too"),
    "depth": ("estimate the depth of pictures", _PICTURES),
    "flow": ("estimate the motion between pairs of pictures", f"the two pictures of each pair in order: {_PICTURES}"),
    "places": ("name the scenes of pictures", _PICTURES),
    "embed": ("turn pictures and texts into CLIP embeddings", _PICTURES),
}  # fmt: skip


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


def add_commands(commands: Any, run: Callable[[argparse.Namespace], int]) -> None:
    """Add the five commands; `run` is called with the parsed line, whose `predict` is the command's name."""
    commands_class = commands._parser_class  # noqa: SLF001  # argparse has no other way to give one parser a class
    commands._parser_class = FilesParser  # noqa: SLF001
    try:
        for name, (words, files) in _WORDS.items():
            parser = commands.add_parser(
                name, help=words, description=f"{words[0].upper()}{words[1:]}. {EXIT_CODES}"
            )
            parser.add_argument("files", nargs="*", metavar="FILE", help=files)
            _ADD[name](parser)
            _add_common(parser)
            parser.set_defaults(command=run, predict=name)
    finally:
        commands._parser_class = commands_class  # noqa: SLF001


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
        "--timeout", type=_positive, default=10.0, metavar="SECONDS", help="longest wait (default 10)"
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
        "--timeout", type=_positive, default=60.0, metavar="SECONDS",
        help="time limit for the answer to one input or one frame of a video (default 60)",
    )  # fmt: skip
    parser.add_argument(
        "--wait", type=_not_negative, default=60.0, metavar="SECONDS",
        help="longest total wait per input for a busy gateway that sends Retry-After (default 60)",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=_count, metavar="N", help="inputs processed at once (default: 4 with --url, else 2)"
    )


def _add_detect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--conf", type=_unit, help="keep only boxes with a higher score (default 0.25)")
    parser.add_argument(
        "--iou", type=_unit, help="boxes of a class that overlap more count as one (default 0.7)"
    )
    parser.add_argument(
        "--max-det", "--max_det", type=_count, metavar="N", help="most boxes per picture (default 300)"
    )
    parser.add_argument(
        "--classes", action="append", metavar="NAMES", help="keep these classes: names or ids, with commas"
    )
    parser.add_argument(
        "--agnostic", action="store_true", help="boxes suppress each other regardless of class"
    )
    parser.add_argument("--variant", choices=("n", "s", "m", "l", "x"), help="YOLO11 variant")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--every", type=_count, metavar="N", help="take every N-th frame of a video")
    how.add_argument("--fps", type=_positive, help="take at most this many frames per second of a video")
    parser.add_argument(
        "--provenance", choices=("every", "change"),
        help="videos: lines with branch and models: every one (default), or the first and each change",
    )  # fmt: skip


def _add_depth(_: argparse.ArgumentParser) -> None:
    """Add no options: depth has none of its own."""


def _add_flow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variant", choices=("small", "large"), help="RAFT's variant (default small)")
    parser.add_argument(
        "--consecutive", action="store_true", help="pair each picture with the next one: 1 2, 2 3, 3 4"
    )


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topk", "-k", type=_count, metavar="N", help="number of categories (default 5)")
    _add_fit(parser)


def _add_embed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", action="append", default=[], help="embed this text; may be repeated")
    parser.add_argument("--no-normalize", action="store_true", help="don't scale the vectors to length 1")
    _add_fit(parser)


def _add_fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fit",
        choices=("crop", "stretch"),
        help="crop the middle of the picture, or stretch all of it (default crop)",
    )


_ADD: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "detect": _add_detect,
    "depth": _add_depth,
    "flow": _add_flow,
    "places": _add_places,
    "embed": _add_embed,
}


def query_of(parsed: argparse.Namespace) -> dict[str, Sequence[str]]:
    """The parameters of the HTTP route that the options stand for, in the order of the route's description."""
    said = vars(parsed)
    query = {
        name: [str(said[option])]
        for name, option in _PARAMETERS.items()
        if said.get(option) not in (None, False)
    }
    if said.get("classes"):
        query["classes"] = said["classes"]
    if said.get("no_normalize"):
        query["normalize"] = ["false"]
    return {name: ["true"] if values == ["True"] else values for name, values in query.items()}


# Query parameter -> option.
_PARAMETERS = {
    "conf": "conf", "iou": "iou", "max_det": "max_det", "agnostic": "agnostic", "variant": "variant",
    "branch": "branch", "fallback": "fallback", "k": "topk", "fit": "fit",
}  # fmt: skip


_MOST = 86400  # seconds of a day, and more frames a second than there are


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    if value > _MOST:
        raise argparse.ArgumentTypeError(f"{text} is greater than {_MOST}")
    return value


def _not_negative(text: str) -> float:
    return 0.0 if text.strip("0.") == "" else _positive(text)


def _unit(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value
