"""Temporary files of killed processes go, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from app.media.abandoned import remove_abandoned
from app.media.npz import atomically

_KILLED = """
import os, signal, sys
from pathlib import Path
from app.media.npz import atomically
with atomically(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def age(folder: Path) -> list[Path]:
    """Make all temporary files of a folder old, and return them."""
    found = sorted(folder.rglob(".*.new"))
    for path in found:
        os.utime(path, (0, 0))
    return found


def test_files_of_a_killed_process_go(tmp_path: Path) -> None:
    """At any depth, once they are old: a young one may be another host's, whose lock isn't seen here."""
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "a" / "x.npz")], check=False)
    (left,) = tmp_path.rglob(".*.new")
    remove_abandoned(tmp_path)
    assert left.exists()
    assert age(tmp_path) == [left]
    remove_abandoned(tmp_path)
    assert not left.exists()


def test_a_file_that_is_written_stays(tmp_path: Path) -> None:
    """However long its writer pauses, and so do files of other names."""
    others = [tmp_path / name for name in (".video.mp4.new", ".x.new", "a.12345678.new", ".partial")]
    for other in others:
        other.touch()
        os.utime(other, (0, 0))
    with atomically(tmp_path / "x.npz") as file:
        file.write(b"whole")
        file.flush()
        assert age(tmp_path)
        remove_abandoned(tmp_path)
    assert (tmp_path / "x.npz").read_bytes() == b"whole"
    assert all(other.exists() for other in others)


def test_what_cannot_be_removed_stays(tmp_path: Path) -> None:
    """Links, pipes and folders of such names disturb nothing, and neither does a folder that is not there."""
    target = tmp_path / "target"
    target.touch()
    (tmp_path / ".a.12345678.new").symlink_to(target)
    os.mkfifo(tmp_path / ".b.12345678.new")
    (tmp_path / ".c.12345678.new").mkdir()
    remove_abandoned(tmp_path)
    remove_abandoned(tmp_path / "absent")
    assert target.exists()
    assert (tmp_path / ".c.12345678.new").is_dir()
