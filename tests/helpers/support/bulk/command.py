"""`gateway bulk` as a user runs it, and what it leaves in an output."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from app.cli import main


def options(repository: Path, folder: Path, profile: str) -> list[str]:
    """Return the options that every run has; writes the profile."""
    (folder / "p.yaml").write_text(profile)
    return ["--profile", str(folder / "p.yaml"), "--repository", str(repository)]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "app.cli", "bulk", *map(str, arguments)]


def run(*arguments: str | Path) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Run the command in this process: exit code, the row of each video by its name, and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["bulk", *map(str, arguments), "--json"])
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len({row["name"] for row in rows}) == len(rows)
    return code, {row["name"]: row for row in rows}, err.getvalue()


def published(output: Path) -> list[dict[str, Any]]:
    """Every row of every segment, in the order of their runs."""
    segments = sorted((output / "run" / "outcomes").iterdir())
    return [json.loads(line) for path in segments for line in path.read_text().splitlines()]


def manifests(output: Path) -> dict[str, dict[str, Any]]:
    """Every manifest, by the name of its video."""
    videos = output / "videos"
    return {
        str(path.parent.relative_to(videos)): json.loads(path.read_text())
        for path in videos.rglob("manifest.json")
    }
