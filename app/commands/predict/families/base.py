"""The record of one command that answers files. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from app.commands.predict.answers import Answer, Work
    from app.commands.predict.inputs import Input
    from app.commands.predict.videos import OnFrame, Summary

PICTURES = "pictures (JPEG, PNG, WebP, BMP), folders (searched recursively), patterns such as 'in/*.jpg', or - (stdin)"
_OF_ALL = {"branch": "branch", "version": "model_version", "fallback": "fallback"}


def answer_as_json(work: Work, entry: Input, data: bytes) -> Answer:
    """Answer a picture with the gateway's JSON, and save nothing else."""
    said, ms = work.json(data)
    return work.answer(entry, data, said, ms)


def _no_options(_: argparse.ArgumentParser) -> None:
    """Add no options beside those of all commands."""


@dataclass(frozen=True, slots=True)
class FamilyCommand:
    """One command that answers files.

    `family` of the catalogue answers pictures at `route`; `help` and `files` describe the command and its arguments.
    `heading` is the table's last column, whose cell `result` makes of a JSON answer. `kinds` are the endings of what
    `--save` may write; the JSON comes last, so that one that is there belongs to a complete answer. `add_options` adds
    the command's own options, and `parameters` maps the route's query parameters to them.

    `picture` answers one picture. A command that takes something else says so by having a function for it: `pair` for
    two pictures, `video` for a video, `text` for a text, which `text_family` answers.
    """

    name: str
    family: str
    route: str
    help: str
    heading: str
    result: Callable[[Mapping[str, Any]], str]
    files: str = PICTURES
    kinds: tuple[str, ...] = ("json",)
    add_options: Callable[[argparse.ArgumentParser], None] = _no_options
    parameters: Mapping[str, str] = field(default_factory=dict)
    picture: Callable[[Work, Input, bytes], Answer] = answer_as_json
    pair: Callable[[Work, Input, Input, bytes, bytes], Answer] | None = None
    video: Callable[[Work, Input, BinaryIO, int, OnFrame], Summary] | None = None
    text: Callable[[Work, Input], Answer] | None = None
    text_family: str | None = None

    @property
    def families(self) -> tuple[str, ...]:
        """Families of the catalogue that it asks."""
        return (self.family,) if self.text_family is None else (self.family, self.text_family)

    def query(self, parsed: argparse.Namespace) -> dict[str, Sequence[str]]:
        """Return the query parameters of the route that the options stand for."""
        said = vars(parsed)
        query: dict[str, Sequence[str]] = {}
        for name, option in {**self.parameters, **_OF_ALL}.items():
            value = said.get(option)
            if value is True:
                query[name] = ["true"]
            elif value not in (None, False):
                query[name] = value if isinstance(value, list) else [str(value)]
        return query | {name: [value] for name, value in said.get("parameter") or ()}
