"""Make a release of what is committed: archive, wheel, parts list (SBOM), digests and tag (docs/release.md).

    make release VERSION=1.2.3             # that is: python deploy/supply/release.py 1.2.3
    make release VERSION=1.2.3 DRY_RUN=1   # everything but the tag

Nothing is pushed or uploaded. Everything that is wrong is said at once, before anything is built; the tag comes last,
so whatever has a tag was built. Exit code 0: done; 1: a step failed; 2: the release isn't prepared.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "triton_vision_gateway"
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)((a|b|rc)\d+)?")


def main() -> int:
    """Check, build, say what was made, tag."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("version")
    parser.add_argument("--dry-run", action="store_true", help="everything but the tag")
    options = parser.parse_args()
    if faults := list(_faults(options.version)):
        print(*(f"release: {fault}" for fault in faults), sep="\n", file=sys.stderr)
        return 2
    out = ROOT / "out" / "release" / options.version
    try:
        made = _make(options.version, out)
    except subprocess.CalledProcessError as error:
        print(f"release: {error.cmd[0]} failed ({error.returncode}); nothing is tagged", file=sys.stderr)
        return 1
    print(*made, sep="\n")
    tag = f"v{options.version}"
    if options.dry_run:
        print(f"dry run: {tag} is not tagged; the files are in {out.relative_to(ROOT)}")
        return 0
    message = f"{tag}\n\n{section(_read('CHANGELOG.md'), options.version)}"
    subprocess.run(
        ["git", "tag", "-a", "--cleanup=verbatim", "-F", "-", tag],
        cwd=ROOT,
        input=message,
        text=True,
        check=True,
    )
    print(f"tagged {tag}; the files are in {out.relative_to(ROOT)}. Not pushed: git push origin {tag}")
    return 0


def _faults(version: str) -> Iterator[str]:
    """Everything that speaks against this release."""
    if not _VERSION.fullmatch(version):
        yield f"{version!r} is no version like 1.2.3 or 1.2.3rc1"
        return
    if changed := _git("status", "--porcelain"):
        yield f"the working tree isn't clean: {', '.join(line[3:] for line in changed.splitlines()[:5])}"
    if (own := current()) != version:
        yield f"app/__init__.py says {own!r}: set __version__ there and the label in the Dockerfile, and commit"
    if f'image.version="{version}"' not in _read("Dockerfile"):
        yield f"the label image.version in the Dockerfile isn't {version!r}"
    if f'\nappVersion: "{version}"\n' not in _read("deploy/helm/triton-vision-gateway/Chart.yaml"):
        yield f"appVersion in the chart's Chart.yaml isn't {version!r}"
    if not section(_read("CHANGELOG.md"), version):
        yield f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD' with an entry"
    if _git("tag", "--list", f"v{version}"):
        yield f"the tag v{version} exists"
    yield from (
        f"{tool} isn't there: run this as `make release`"
        for tool in ("build", "twine")
        if not _installed(tool)
    )


def current() -> str:
    """The version of the working tree, without importing it."""
    found = re.search(r'^__version__ = "([^"]+)"$', _read("app/__init__.py"), re.MULTILINE)
    return found[1] if found else "nothing"


def section(changelog: str, version: str) -> str:
    """The text below the heading of a version; empty if there is no such heading with a date, or no entry."""
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)"
    found = re.search(heading, changelog, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found and re.search(r"^- \S", found[1], re.MULTILINE) else ""


def _make(version: str, out: Path) -> list[str]:
    """Build what is committed, in a folder that holds nothing else; a line for each file.

    Raises:
        CalledProcessError: a step failed; `out` is as before.
    """
    with tempfile.TemporaryDirectory(prefix="release-") as scratch:
        source, made = Path(scratch) / "source", Path(scratch) / "made"
        source.mkdir()
        archive = subprocess.run(
            ["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True
        ).stdout
        subprocess.run(["tar", "x", "-C", source], input=archive, check=True)
        environment = {
            **os.environ,
            "SOURCE_DATE_EPOCH": _git("log", "-1", "--format=%ct"),
            "PIP_CONSTRAINT": str(source / "constraints.txt"),  # the setuptools that the tests ran with
        }
        _run([sys.executable, "-m", "build", "--outdir", made, source], environment)
        files = sorted(made.iterdir())
        if [file.name for file in files] != [
            f"{NAME}-{version}-py3-none-any.whl",
            f"{NAME}-{version}.tar.gz",
        ]:
            raise subprocess.CalledProcessError(1, ["build"])
        _run([sys.executable, "-m", "twine", "check", "--strict", *files], environment)
        _run(["make", "--no-print-directory", "sbom"], dict(os.environ))
        shutil.copyfile(ROOT / "out" / "sbom.cdx.json", made / f"{NAME}-{version}.cdx.json")
        sums = [f"{_sha256(file)}  {file.name}" for file in sorted(made.iterdir())]
        (made / "SHA256SUMS").write_text("".join(f"{line}\n" for line in sums), encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(made, out)
    return sums


def _run(command: list[str | Path], environment: dict[str, str]) -> None:
    os.umask(0o022)  # modes of files go into the wheel
    print("$", *("python" if word == sys.executable else Path(word).name for word in command), flush=True)
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _installed(module: str) -> bool:
    command = [sys.executable, "-c", f"import {module}"]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False, cwd="/").returncode == 0


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
