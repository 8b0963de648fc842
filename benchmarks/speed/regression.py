"""Has the gateway become slower? Its ratios to limit, bare app and plain service against the committed ones.

    make bench-guard                       # about 3 minutes; exit code 1: slower, 2: nothing to compare with
    python -m benchmarks.speed.regression --short     # without the plain service, about 1 minute

It measures a detector, a dense family and an embedding (`GUARD` of `common/cases.py`). A ratio counts as worse when its
median lies further from the committed one than the noise of both runs' rounds allows (three standard errors of the
median, 15 % at least). What looks worse is measured a second time, and counts only if all rounds together still say so.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.common.cases import GUARD
from benchmarks.speed.ratios import FLOOR, compared, worse
from benchmarks.speed.report import terminal
from benchmarks.speed.run import ESSENTIAL, Run, figures
from benchmarks.speed.targets import Effort

COMMITTED = ROOT / "docs" / "benchmarks" / "speed.json"
ROUNDS, SHORT_ROUNDS = 6, 4
EFFORT, SHORT_EFFORT = Effort(1.0, 0.5, 0.4), Effort(0.6, 0.3, 0.3)


def main() -> int:
    """Measure, compare, and say."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="for every push: fewer rounds, no peer")
    parser.add_argument("--committed", type=Path, default=COMMITTED, help="figures of benchmarks.speed")
    parser.add_argument(
        "--floor", type=float, default=FLOOR, help="so much is always allowed: more on another machine"
    )
    options = parser.parse_args()
    try:
        committed = json.loads(options.committed.read_text(encoding="utf-8"))
    except OSError as error:
        print(f"nothing to compare with: {error}", file=sys.stderr)
        return 2
    return _guard(committed, options.floor, short=options.short)


def _guard(committed: dict[str, Any], floor: float, *, short: bool) -> int:
    targets = ESSENTIAL if short else (*ESSENTIAL, "plain")
    effort, rounds = (SHORT_EFFORT, SHORT_ROUNDS) if short else (EFFORT, ROUNDS)
    with tempfile.TemporaryDirectory() as name:
        run = Run(targets, GUARD, effort, Path(name))
        before = _of_ours(committed)
        faults: list[str] = []
        for again in (False, True):
            run.go(rounds)
            found = figures(run)
            print(terminal(found))
            if not compared(before, _of_ours(found)):
                print("nothing to compare: the committed run has none of these ratios", file=sys.stderr)
                return 2
            faults = worse(before, _of_ours(found), floor)
            if not faults or again:
                break
            print("\nlooks slower, measuring again:", *faults, sep="\n  ")
    if faults:
        print("\nSLOWER:", *faults, sep="\n  ")
        return 1
    print(f"\nas fast as committed: {compared(committed['ratios'], found['ratios'])} ratios compared")
    return 0


def _of_ours(found: dict[str, Any]) -> dict[str, Any]:
    """The gateway's own ratios: that the bare app became slower against the limit is nobody's fault."""
    return {pair: figures for pair, figures in found["ratios"].items() if pair.startswith("ours / ")}


if __name__ == "__main__":
    sys.exit(main())
