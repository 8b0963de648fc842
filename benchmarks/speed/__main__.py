"""The gateway beside the limit, the barest ASGI app and what people use today, in one run.

    make bench-speed                                     # everything: docs/benchmarks/speed.json and speed.md
    python -m benchmarks.speed --targets limit,bare,ours --rounds 3 --seconds 1
    python -m benchmarks.speed --cases flow_512,clip_image,places

Models compute next to nothing (`common/null_models.py`) on a real Triton. Rounds are interleaved: each round sends
every case to every target, so that what slows the machine slows all of them. Ratios are made round by round; the tables
give their medians, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.common.cases import CASES, MAIN
from benchmarks.speed.report import markdown, terminal
from benchmarks.speed.run import ALL, ESSENTIAL, measure
from benchmarks.speed.targets import Effort

JSON_CALLS = 5


def main() -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--targets", default=",".join(ESSENTIAL), help=f"or all; {', '.join(ALL)}; peers are installed first"
    )
    parser.add_argument("--cases", default=",".join(MAIN), help=f"or all; {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=1.5, help="of a round with 4 requests in flight (half with one)"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    options = parser.parse_args()
    targets = ALL if options.targets == "all" else options.targets.split(",")
    cases = tuple(CASES) if options.cases == "all" else options.cases.split(",")
    effort = Effort(options.seconds, options.seconds / 2, min(0.5, options.seconds / 2))
    everything = options.targets == "all"
    found = measure(targets, cases, options.rounds, effort, JSON_CALLS if everything else 0)
    print(terminal(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
