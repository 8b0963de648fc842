"""ByteTrack on MOT17's public FRCNN detections: ours and packages', judged by trackeval, timed in interleaved rounds.

    python -m benchmarks.tracking [--data ../shared/data/mot17] [--rounds 5] [--json FILE]

The folder holds one folder a sequence, as MOT17 has them: `det/det.txt`, `gt/gt.txt`, `seqinfo.ini`. The packages live
in an environment of their own (`.venv-mot17`, from mot17-requirements.txt; 7 GB, because two of them need torch), which
the first run makes. measure.py is what runs there, trackers.py calls each tracker.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from benchmarks import ROOT

REQUIREMENTS = Path(__file__).with_name("mot17-requirements.txt")
OURS = ("app", "benchmarks", "routing")


def main() -> int:
    """Make the environment where it is missing, and measure in it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "mot17")
    parser.add_argument("--rounds", type=int, default=5, help="that are counted")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv-mot17")
    options = parser.parse_args()
    python = options.environment / "bin" / "python"
    if not python.exists():
        print(f"making {options.environment}: some minutes", flush=True)
        venv.create(options.environment, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
    _link_ours(options.environment)
    arguments = ["--data", options.data, "--rounds", str(options.rounds)]
    arguments += ["--json", options.json] if options.json else []
    with (
        tempfile.TemporaryDirectory() as settings
    ):  # Ultralytics writes some when it is imported, and asks the network
        offline = {
            "YOLO_CONFIG_DIR": settings,
            "YOLO_OFFLINE": "1",
            "YOLO_AUTOINSTALL": "0",
            "YOLO_VERBOSE": "false",
        }
        command = [python, "-P", "-m", "benchmarks.tracking.measure", *arguments]
        return subprocess.run(command, env={**os.environ, **offline}, check=False).returncode


def _link_ours(environment: Path) -> None:
    """Let the environment import what is measured of this repository, and no more.

    With the whole root on its path, the folder `triton/` could stand in for the package of that name, which torch
    imports.
    """
    (packages,) = environment.glob("lib/python3*/site-packages")
    for name in OURS:
        link = packages / name
        if not link.is_symlink():
            link.symlink_to(ROOT / name)


if __name__ == "__main__":
    sys.exit(main())
