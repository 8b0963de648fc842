"""Writes the dashboards that Grafana loads from `dashboards/`; --check says whether they are what this code makes.

    python -m deploy.grafana.build [--check]

Standard library only. Families are those of the catalogue. Change a panel in `boards/`, run this, commit both.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from deploy.grafana.boards import branches, bulk, overview, provenance, triton, videos
from deploy.grafana.panels import with_families
from routing import catalogue

FOLDER = Path(__file__).parent / "dashboards"
BOARDS = {
    "overview": overview.board,
    "branches": branches.board,
    "triton": triton.board,
    "videos": videos.board,
    "bulk": bulk.board,
    "provenance": provenance.board,
}


def dashboards(families: Iterable[str]) -> dict[str, str]:
    """Return the text of each dashboard by the name of its file."""
    families = tuple(families)
    made = {name: with_families(board(), families) for name, board in BOARDS.items()}
    return {
        f"{name}.json": json.dumps(board, indent=1, ensure_ascii=False) + "\n" for name, board in made.items()
    }


def main() -> int:
    """The exit code is 1 if --check finds a difference."""
    made = dashboards(catalogue.load().families)
    there = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.json")}
    if "--check" not in sys.argv[1:]:
        for name, text in made.items():
            (FOLDER / name).write_text(text, "utf-8")
        return 0
    stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    for name in stale:
        print(f"{name} isn't what it should be; run: python -m deploy.grafana.build")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
