"""The gateway beside the limit, the barest ASGI app and what people use today, in one run.

    make bench-speed                                     # the target cases beside all peers: speed.json and speed.md
    make bench-sizes                                     # every family at every size: sizes.json and sizes.md
    python -m benchmarks.speed --targets limit,bare,ours --rounds 3 --seconds 1
    python -m benchmarks.speed --cases 'flow_*,clip_image_4k'
    python -m benchmarks.speed --write speed --redraw    # the page again, from the committed figures

Models compute next to nothing (`common/null_models.py`) on a real Triton. Rounds are interleaved: each round sends
every case to every target, so that what slows the machine slows all of them. Ratios are made round by round; the tables
give their medians, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from typing import Any

from benchmarks import ROOT
from benchmarks.common.cases import CASES, select
from benchmarks.speed.report import PAGES, markdown, terminal
from benchmarks.speed.run import ALL, ESSENTIAL, measure
from benchmarks.speed.targets import Effort

FOLDER = ROOT / "docs" / "benchmarks"
JSON_CALLS = 5


def main() -> int:
    """Measure, print, and write what was asked for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    options = _options()
    if options.redraw:
        found = json.loads((FOLDER / f"{options.write}.json").read_text(encoding="utf-8"))
    else:
        found = _measured(options)
        print(terminal(found))
    if options.write:
        (FOLDER / f"{options.write}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (FOLDER / f"{options.write}.md").write_text(markdown(found, options.write), encoding="utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--targets", default=",".join(ESSENTIAL), help=f"or all; {', '.join(ALL)}; peers are installed first"
    )
    parser.add_argument("--cases", default="main", help=f"or guard, all, patterns; {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of a round with 4 requests in flight (half with one)"
    )
    parser.add_argument("--write", choices=PAGES, help="write NAME.json and NAME.md in docs/benchmarks")
    parser.add_argument(
        "--redraw", action="store_true", help="measure nothing, write the page of --write again"
    )
    options = parser.parse_args()
    if options.redraw and not options.write:
        parser.error("--redraw needs --write")
    try:
        options.cases = select(options.cases)
    except ValueError as error:
        parser.error(str(error))
    options.targets = ALL if options.targets == "all" else options.targets.split(",")
    unknown = sorted(set(options.targets) - set(ALL))
    if unknown:
        parser.error(f"no target is called {', '.join(unknown)}; there are: {', '.join(ALL)}")
    return options


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    effort = Effort(options.seconds, options.seconds / 2, min(0.5, options.seconds / 2))
    everything = tuple(options.targets) == ALL
    return measure(options.targets, options.cases, options.rounds, effort, JSON_CALLS if everything else 0)


if __name__ == "__main__":
    sys.exit(main())
