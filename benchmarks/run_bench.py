"""Measure branches: another name for `gateway bench` and `python -m benchmarks.matrix`."""

from __future__ import annotations

import sys

from app.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
