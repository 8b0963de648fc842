"""`gateway places`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from app.commands.predict.families.arguments import add_fit, count
from app.commands.predict.families.base import FamilyCommand


def _result(said: Mapping[str, Any]) -> str:
    return ", ".join(f"{place['category']} {place['probability']:.2f}" for place in said["places"])


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topk", "-k", type=count, metavar="N", help="number of categories (default 5)")
    add_fit(parser)


PLACES = FamilyCommand(
    name="places",
    family="places",
    route="/v1/places",
    help="name the scenes of pictures",
    heading="scene",
    result=_result,
    add_options=_add_options,
    parameters={"k": "topk", "fit": "fit"},
)
