"""Folders of runs on this machine: those of killed runs are removed by a later one, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.paths import ROOT

from app.bulk.executors.scratch import RunFolder

KILLED = """
import os, signal
from app.bulk.executors.scratch import RunFolder
folder = RunFolder()
if {stopped}:
    folder.stop_file.touch()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, of this process and of others."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def _aged(path: Path) -> Path:
    os.utime(path, (0, 0))
    return path


@pytest.mark.parametrize("stopped", [False, True])
def test_the_folder_of_a_killed_run_is_removed(temporary: Path, *, stopped: bool) -> None:
    """By a run that begins a minute later; before that it might belong to one that begins just now."""
    done = subprocess.run([sys.executable, "-c", KILLED.format(stopped=stopped)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = temporary.iterdir()
    RunFolder().remove()
    assert list(temporary.iterdir()) == [left]
    _aged(left)
    RunFolder().remove()
    assert list(temporary.iterdir()) == []


def test_no_other_folder_is_removed(temporary: Path) -> None:
    """One of a run that lives, one with somebody's files, a link, a file, and another name."""
    living = RunFolder()
    _aged(living.stop_file.parent)
    used, other = temporary / "gateway-bulk-used", temporary / "other"
    used.mkdir()
    other.mkdir()
    (used / "notes.txt").touch()
    (temporary / "gateway-bulk-link").symlink_to(_aged(other))
    _aged(used)
    (temporary / "gateway-bulk-file").touch()
    before = sorted(temporary.rglob("*"))
    again = RunFolder()
    again.remove()
    again.remove()
    assert sorted(temporary.rglob("*")) == before
    living.remove()
    assert not living.stop_file.parent.exists()
