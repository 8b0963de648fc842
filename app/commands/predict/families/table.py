"""THE table of commands that answer files, in the order of `gateway --help`."""

from __future__ import annotations

from app.commands.predict.families.base import FamilyCommand
from app.commands.predict.families.depth import DEPTH
from app.commands.predict.families.detect import DETECT
from app.commands.predict.families.embed import EMBED
from app.commands.predict.families.flow import FLOW
from app.commands.predict.families.places import PLACES
from app.commands.predict.families.plain import plain_command
from routing.catalogue import Catalogue

COMMANDS = (DETECT, DEPTH, FLOW, PLACES, EMBED)


def commands_of(catalogue: Catalogue) -> tuple[FamilyCommand, ...]:
    """Return the commands of the table, and a plain one for each family that none of them asks."""
    asked = {family for command in COMMANDS for family in command.families}
    others = [family for family in catalogue.families.values() if family.name not in asked]
    return (*COMMANDS, *map(plain_command, others))
