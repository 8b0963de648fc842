"""The command of a family that has no module of its own here: the JSON answer of its route, a row per picture."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from app.commands.predict.families.base import FamilyCommand
from routing.catalogue import Family

# Fields of every answer to one frame.
_OF_ALL = {
    "image", "branch", "warnings", "resolved_model_mapping", "models_used", "model_signature", "degraded",
}  # fmt: skip


def plain_command(family: Family) -> FamilyCommand:
    """Return the command of a family whose route takes pictures and is named after it."""
    return FamilyCommand(
        name=family.name,
        family=family.name,
        route=f"/v1/{family.name}",
        help=f"answer pictures by the family {family.name}: {family.title}",
        heading=family.name,
        result=_fields,
        add_options=_add_options,
    )


def _fields(said: Mapping[str, Any]) -> str:
    """`brightness 0.5, rows 3`: the answer's own fields; of a list or an object its length."""
    return ", ".join(f"{name} {_short(value)}" for name, value in said.items() if name not in _OF_ALL)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(len(value)) if isinstance(value, list | dict) else str(value)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--parameter",
        action="append",
        type=_parameter,
        metavar="NAME=VALUE",
        help="a query parameter of the route; may be repeated",
    )


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
