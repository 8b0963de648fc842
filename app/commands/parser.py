"""The command line's parser, which says what was probably meant."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from app.hints import did_you_mean

_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")
_UNKNOWN = re.compile(r"unrecognized arguments: (.*)")


class Parser(argparse.ArgumentParser):
    """`argparse`'s; parsers of commands are of this class, too."""

    called = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Remember that this command was given: hints name its options only."""
        self.called = True
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the message, which a known command, value or option is added to if one is alike."""
        super().error(message + self._hint(message))

    def _hint(self, message: str) -> str:
        if found := _CHOICE.search(message):
            return did_you_mean(found[1], [word.strip(" '") for word in found[2].split(",")])
        if found := _UNKNOWN.search(message):
            options = [word.partition("=")[0] for word in found[1].split() if word.startswith("--")]
            known = list(_options(self))
            if hint := next((hint for option in options if (hint := did_you_mean(option, known))), ""):
                return hint
            if any(os.path.lexists(word) for word in found[1].split()):
                return "; -- goes before names of files that begin with -"
        return ""


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The options of a parser and of the command that was given."""
    for action in parser._actions:  # noqa: SLF001  # argparse has no public list of them
        yield from action.option_strings
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                if isinstance(command, Parser) and command.called:
                    yield from _options(command)
