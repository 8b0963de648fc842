"""Rollouts: the share of requests that a further version of a branch serves, chosen by a stable hash of a key.

The position of a key is a whole number from 0 to 9999: the first eight bytes of the SHA-256 of `<component> <key>`
(UTF-8), as a big-endian number, modulo 10000. A version with P percent serves the keys whose position is below
P * 100. So a key always gets the same version, and keeps it while the percentage grows. Families of one component
agree, as the texts and pictures of CLIP must. Pure, like its room.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from routing.catalogue import Branch
from routing.versions import is_version, name_of

POSITIONS = 10_000
_FORM = "branch=version:percent%, such as yolo11n_640=2:10%"


@dataclass(frozen=True, slots=True)
class Rollout:
    """A further version of a branch, and how many of `POSITIONS` it serves (0: only those who ask for it)."""

    branch: str
    version: str
    positions: int

    @property
    def percent(self) -> str:
        """The percentage as a short text, such as `12.5%`."""
        return f"{self.positions / 100:g}%"


def rollouts_in(text: str) -> Mapping[str, Rollout]:
    """Read rollouts that are separated by commas, at most one per branch; return them by branch.

    Raises:
        ValueError: one isn't written as `branch=version:percent%`; the message names it.
    """
    found: dict[str, Rollout] = {}
    for word in (word.strip() for word in text.split(",") if word.strip()):
        rollout = _rollout(word)
        if rollout.branch in found:
            raise ValueError(f"{rollout.branch[:100]} is named twice")
        found[rollout.branch] = rollout
    return found


def position(component: str, key: str) -> int:
    """Return the position of a key, from 0 to 9999; see the module."""
    digest = hashlib.sha256(f"{component} {key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % POSITIONS


def chosen(rollouts: Mapping[str, Rollout], at: int) -> frozenset[Rollout]:
    """Return the rollouts that serve the keys at a position."""
    return frozenset(one for one in rollouts.values() if at < one.positions)


def base_of(branch: Branch) -> str:
    """Return the name that rollouts have for a branch: a twin goes with its branch, and so does a further version."""
    name = branch.twin_of or branch.name
    return name if branch.version_of is None else name.removesuffix(name_of("", branch.version or ""))


def _rollout(word: str) -> Rollout:
    branch, equals, rest = word.partition("=")
    version, colon, share = rest.partition(":")
    if not (branch and equals and colon and is_version(version) and share.endswith("%")):
        raise ValueError(f"{word[:100]!r} isn't {_FORM}")
    try:
        percent = Decimal(share[:-1])
        exact = percent * 100
        whole = percent.is_finite() and 0 <= percent <= 100 and exact == int(exact)
    except (InvalidOperation, ValueError, OverflowError):
        whole = False
    if not whole:
        raise ValueError(f"{word[:100]!r}: a percentage is from 0 to 100, with at most two decimal places")
    return Rollout(branch, version, int(exact))
