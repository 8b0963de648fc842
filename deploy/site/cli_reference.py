"""The reference of the command line, made from the help of `gateway` and its commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping

_COMMANDS = re.compile(r"^ {4}([a-z]+)(?: {2,}|$)", re.MULTILINE)
HEAD = """# Command line

The help of each command, as `gateway COMMAND --help` prints it. [Files on the command line](../cli.md) shows how to use
those that process pictures. Every command also reads the [settings](../settings.md) from the environment.

"""


def pages() -> Mapping[str, str]:
    """Return the page by its name on the site."""
    return {"reference/cli.md": HEAD + "\n".join(_sections())}


def _sections() -> Iterator[str]:
    whole = _help()
    yield f"``` text\n{whole}\n```\n"
    for command in _commands(whole):
        text = _help(command)
        yield f"## gateway {command}\n\n``` text\n{text}\n```\n"
        for inner in _commands(text):
            yield f"### gateway {command} {inner}\n\n``` text\n{_help(command, inner)}\n```\n"


def _commands(text: str) -> list[str]:
    """The commands that a help lists."""
    listed = re.search(r"^  (?:COMMAND|ACTION)\n(.*)", text, re.MULTILINE | re.DOTALL)
    return _COMMANDS.findall(listed[1].partition("\n\n")[0]) if listed else []


def _help(*command: str) -> str:
    """Return the text of `--help`; in a process of its own, which is nobody's terminal."""
    environment = {**os.environ, "COLUMNS": "86", "NO_COLOR": "1", "PYTHON_COLORS": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *command, "--help"],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()
