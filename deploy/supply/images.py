"""The digests of the images that the Dockerfile and compose.yaml name, in images.json: checked, filled, printed.

    python deploy/supply/images.py check [--pinned]   # does images.json fit? --pinned: has every image a digest?
    python deploy/supply/images.py fill               # asks the registries, by `docker buildx imagetools`
    python deploy/supply/images.py env                # lines for .env that use the digests

A digest that nobody has asked for is null, and never a guess. Exit code 1: something doesn't fit.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("images.json")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAMED = re.compile(r"\$\{(\w+_IMAGE):-([^}]+)\}|^ARG (\w+_IMAGE)=(\S+)", re.MULTILINE)
Digests = dict[str, str | None]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("check", "fill", "env"))
    parser.add_argument("--pinned", action="store_true", help="an image without a digest is a fault, too")
    given = parser.parse_args()
    if given.action == "fill":
        return fill()
    known: Digests = json.loads(FILE.read_text(encoding="utf-8"))
    if given.action == "env":
        print(*env(variables(), known), sep="\n")
        return 0
    faults = check(set(variables().values()), known, pinned=given.pinned)
    print(*(faults or ["images.json fits"]), sep="\n")
    return 1 if faults else 0


def variables() -> dict[str, str]:
    """Variable -> image with its tag, of the Dockerfile and compose.yaml."""
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("Dockerfile", "compose.yaml"))
    return {match[1] or match[3]: match[2] or match[4] for match in _NAMED.finditer(text)}


def check(images: set[str], known: Digests, *, pinned: bool) -> list[str]:
    """Everything that doesn't fit, one sentence each."""
    faults = [f"{image}: isn't in images.json" for image in sorted(images - known.keys())]
    faults += [f"{image}: nothing uses it" for image in sorted(known.keys() - images)]
    for image, digest in known.items():
        if digest is None and pinned:
            faults.append(f"{image}: no digest; fill them where a registry can be reached")
        if digest is not None and not _DIGEST.fullmatch(digest):
            faults.append(f"{image}: {digest!r} is no digest")
    return faults


def fill() -> int:
    """Ask for every digest; images.json is written when all were answered."""
    known: Digests = {}
    for image in variables().values():
        command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            print("docker isn't installed", file=sys.stderr)
            return 1
        digest = done.stdout.strip()
        if done.returncode or not _DIGEST.fullmatch(digest):
            print(f"{image}: no digest: {done.stderr.strip() or digest!r}", file=sys.stderr)
            return 1
        known[image] = digest
        print(f"{image}@{digest}")
    FILE.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return 0


def env(images: dict[str, str], known: Digests) -> list[str]:
    """A line per variable, with the digest where it is known."""
    return [
        f"{name}={image}@{known[image]}" if known.get(image) else f"{name}={image}"
        for name, image in images.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
