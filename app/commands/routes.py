"""`gateway routes`: the branch that each frame size takes, and why."""

from __future__ import annotations

import argparse
import sys

from app.hints import did_you_mean
from app.process.catalogue import load_catalogue
from app.settings import Settings
from routing.catalogue import Catalogue
from routing.policy import FrameFacts, Readiness, RoutingError, Wishes, route

# fmt: off
_SIDES = (
    64, 128, 224, 256, 320, 321, 384, 448, 449, 512, 640, 641, 720, 960, 1080, 1280, 1920, 2160, 3840, 4096,
)
# fmt: on


def add_options(parser: argparse.ArgumentParser, catalogue: Catalogue) -> None:
    """Add what the command takes; `catalogue` is the project's own."""
    parser.add_argument("--family", default="detect", choices=list(catalogue.families))
    parser.add_argument(
        "--variant",
        help="n s m l x for detect, small large for flow, or one of your own (default: GATEWAY_VARIANT)",
    )
    parser.add_argument("--not-ready", default="", help="branches to treat as not ready, separated by commas")
    parser.add_argument("sizes", nargs="*", type=_size, help="W or WxH in pixels (default: 64 to 4096)")


def routes(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    settings = Settings()
    catalogue, default = load_catalogue(settings), settings.variant
    family = catalogue[parsed.family]
    away = {name.strip() for name in parsed.not_ready.split(",")} - {""}
    faults = list(_faults(catalogue, default, away))
    for fault in faults:
        print(f"gateway routes: {fault}", file=sys.stderr)
    if faults:
        return 2
    ready = {
        branch.name: Readiness.UNAVAILABLE if branch.name in away else Readiness.READY
        for branch in family.branches
    }
    for width, height in parsed.sizes or [(side, side) for side in _SIDES]:
        try:
            decision = route(
                family, FrameFacts(width, height), Wishes(variant=parsed.variant), ready, default
            )
        except RoutingError as error:
            print(f"{width}x{height:<6} {error.code}: {error.detail}")
            continue
        print(f"{width}x{height:<6} {decision.branch.name:24} {decision.why}")
    return 0


def _faults(catalogue: Catalogue, variant: str | None, away: set[str]) -> list[str]:
    faults = [
        f"no branch is called {name}{did_you_mean(name, catalogue.branches)}"
        for name in sorted(away - catalogue.branches.keys())
    ]
    fault = catalogue.variant_fault(variant)
    if fault is not None:
        faults.append(f"GATEWAY_VARIANT: {fault}{did_you_mean(variant or '', catalogue.variants)}")
    return faults


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    size = int(width), int(height or width)
    if min(size) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no size")
    return size
