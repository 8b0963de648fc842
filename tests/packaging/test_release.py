"""`make release`, on a scratch repository: what it refuses, what it makes, and that the tag comes last."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

from app import __version__

SCRIPT = "deploy/supply/release.py"


def git(folder: Path, *arguments: str) -> str:
    """Run git there, as somebody."""
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def scratch(source: Path, tmp_path: Path) -> Path:
    """A repository with one commit: this one's files."""
    folder = tmp_path / "scratch"
    ignored = shutil.ignore_patterns("build", "*.egg-info", "out")
    shutil.copytree(source, folder, ignore=ignored)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "All")
    return folder


def prepare(folder: Path, version: str) -> None:
    """Do what docs/release.md says comes before."""
    for name, old, new in [
        ("app/__init__.py", f'"{__version__}"', f'"{version}"'),
        ("Dockerfile", f'image.version="{__version__}"', f'image.version="{version}"'),
        (
            "deploy/helm/triton-vision-gateway/Chart.yaml",
            f'appVersion: "{__version__}"',
            f'appVersion: "{version}"',
        ),
        ("CHANGELOG.md", "## [Unreleased]\n", f"## [Unreleased]\n\n## [{version}] - 2027-01-31\n"),
    ]:
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def test_everything_that_is_not_prepared_is_said_at_once(scratch: Path) -> None:
    """Exit code 2, a line each, and nothing is made."""
    (scratch / "left-over.txt").touch()
    done = subprocess.run(
        [sys.executable, SCRIPT, "9.9.9"], cwd=scratch, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    for said in (
        "release: the working tree isn't clean: left-over.txt",
        f"release: app/__init__.py says '{__version__}'",
        "release: the label image.version in the Dockerfile isn't '9.9.9'",
        "release: appVersion in the chart's Chart.yaml isn't '9.9.9'",
        "release: CHANGELOG.md has no section '## [9.9.9] - YYYY-MM-DD'",
    ):
        assert said in done.stderr
    assert not (scratch / "out").exists()


@pytest.mark.parametrize("version", ["1.2", "v1.2.3", "1.2.3-beta", "01.2.3", ""])
def test_a_version_that_is_none_is_refused(version: str) -> None:
    """By its form, before anything else."""
    command = [sys.executable, ROOT / SCRIPT, version]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"release: {version!r} is no version like 1.2.3 or 1.2.3rc1\n"


@pytest.mark.wheel
def test_a_release_is_made_and_tagged_once(scratch: Path) -> None:
    """A dry run makes the files without a tag; the release makes the same bytes and tags; a second one is refused."""
    for name in (".venv-release", ".venv-supply"):
        (scratch / name).symlink_to(ROOT / name)
    prepare(scratch, "9.9.9")
    git(scratch, "commit", "-qam", "Prepare 9.9.9")

    def release(*more: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--no-print-directory", "release", "VERSION=9.9.9", *more]
        return subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)

    made = scratch / "out" / "release" / "9.9.9"
    dry = release("DRY_RUN=1")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    name = "triton_vision_gateway-9.9.9"
    parts = [f"{name}-py3-none-any.whl", f"{name}.cdx.json", f"{name}.tar.gz"]
    assert sorted(path.name for path in made.iterdir()) == ["SHA256SUMS", *parts]
    sums = (made / "SHA256SUMS").read_text()
    assert sums == "".join(f"{hashlib.sha256((made / n).read_bytes()).hexdigest()}  {n}\n" for n in parts)
    assert git(scratch, "tag") == ""

    git(scratch, "config", "user.name", "somebody")
    git(scratch, "config", "user.email", "somebody@example.org")
    done = release()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (made / "SHA256SUMS").read_text() == sums
    message = git(scratch, "tag", "-l", "--format=%(contents)", "v9.9.9")
    assert re.match(r"v9\.9\.9\n\n### (Added|Changed)\n", message)
    assert git(scratch, "status", "--porcelain") == ""

    again = release()
    assert again.returncode == 2
    assert "release: the tag v9.9.9 exists" in again.stderr
