"""The repository's files, and the distributions that are built from them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.paths import ROOT

EPOCH = "1700000000"


def tracked(*folders: str) -> list[str]:
    """Paths of the repository's files, those that aren't added yet included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return sorted({name for name in listing.split("\0") if name and (ROOT / name).is_file()})


def build(source: Path, out: Path, kind: str) -> Path:
    """The distribution of a folder: `wheel` or `sdist`."""
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", out, source],
        capture_output=True, text=True, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
    )  # fmt: skip
    (found,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return found
