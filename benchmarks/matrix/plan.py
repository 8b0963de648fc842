"""Policies by name, and the ones that apply to each branch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from routing.catalogue import Branch

TARGETS = ("gateway", "triton_grpc", "triton_shm", "triton_json", "embedded")
DEFAULT_POLICIES = "seq,c4,prompts8,prompts29,open@0.8x"
POLICIES = """seq (one after another), cN (closed loop, N in flight), promptsN (text: N prompts a request), open@R (open
loop, R requests/s), open@Rx (open loop, R times the throughput that seq had on this branch and target)"""
Key = tuple[str, str, str]  # branch, policy, target
_FORM = re.compile(
    r"(?P<seq>seq)|c(?P<in_flight>[1-9]\d*)|prompts(?P<prompts>[1-9]\d*)|open@(?P<rate>\d+\.?\d*)(?P<times>x?)"
)


@dataclass(frozen=True, slots=True)
class Policy:
    """A way to send requests. `rate` is in requests/s, or with `relative` a fraction of seq's throughput."""

    name: str
    in_flight: int = 1
    prompts: int = 1
    rate: float | None = None
    relative: bool = False

    def fits(self, branch: Branch) -> bool:
        """Several prompts a request are for text alone."""
        return self.prompts == 1 or branch.size is None


def policies(text: str) -> list[Policy]:
    """Read `seq,c4,…`.

    Raises:
        ValueError: one is none of the forms.
    """
    return [_policy(name.strip()) for name in text.split(",")]


def _policy(name: str) -> Policy:
    match = _FORM.fullmatch(name)
    if match is None or (match["rate"] and not float(match["rate"])):
        raise ValueError(f"{name!r} is no policy: {POLICIES}")
    rate = float(match["rate"]) if match["rate"] else None
    return Policy(name, int(match["in_flight"] or 1), int(match["prompts"] or 1), rate, match["times"] == "x")


def targets(text: str) -> Sequence[str]:
    """Read `gateway,triton_shm,…`.

    Raises:
        ValueError: one is no target.
    """
    names = [name.strip() for name in text.split(",")]
    unknown = sorted(set(names) - set(TARGETS))
    if unknown:
        raise ValueError(f"no such target: {', '.join(unknown)} (there are {', '.join(TARGETS)})")
    return names
