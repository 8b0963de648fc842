"""Growth of the gateway's cost with the picture, the callers, the prompts, the boxes, the workers, the video.

    make bench-growth                                    # docs/benchmarks/growth.json, and a PNG a curve
    python -m benchmarks.growth --quick                  # the same, shorter: a look, no figures to keep
    python -m benchmarks.growth --only prompts,boxes

Models compute next to nothing (`common/null_models.py`) on a real Triton, so all but a small, constant part is the
gateway's.
`p50_ms` is with one request in flight, `cpu_ms` the gateway's processor time a request, `per_s` requests a second with
four in flight, `rss_mb` the gateway's resident memory then, tensors in shared memory included.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.common.environment import environment
from benchmarks.growth.cases import Effort, Ground, boxes, in_flight, prompts, sizes, videos, workers

SECTIONS: Mapping[str, Callable[[Ground, Effort], list[dict[str, Any]]]] = {
    "size": sizes,
    "in_flight": in_flight,
    "prompts": prompts,
    "boxes": boxes,
    "workers": workers,
    "video": videos,
}


def main() -> None:
    """Measure, print, and write what was asked for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer points, shorter; writes no file")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--json", type=Path, help="write the figures here; other sections there are kept")
    parser.add_argument(
        "--plot", type=Path, metavar="FOLDER", help="a PNG a section (pip install '.[bench]')"
    )
    options = parser.parse_args()
    effort = Effort(seconds=0.5, quick=True) if options.quick else Effort()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, Ground(Path(folder)) as ground:
        for name in options.only.split(","):
            began = time.monotonic()
            rows[name] = SECTIONS[name](ground, effort)
            print(f"{name} ({time.monotonic() - began:.0f} s)")
            for row in rows[name]:
                print("  " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        document = {
            "command": shlex.join(["python", "-m", "benchmarks.growth", *sys.argv[1:]]),
            "environment": environment(ground.triton_url, ground.gateway_url, {}),
            "rows": rows,
        }
    if options.quick:
        return
    if options.json:
        if options.json.exists():
            document["rows"] = json.loads(options.json.read_text())["rows"] | rows
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.plot:
        from benchmarks.growth.plot import plot  # noqa: PLC0415  # an extra: matplotlib

        plot(document, options.plot)


if __name__ == "__main__":
    main()
