"""The file system that a path lies on, as the kernel lists it in /proc/self/mountinfo (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

_TABLE = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")
# Locks on these hold within one host at best, and writes of several hosts are seen late.
_NETWORK = frozenset(
    {
        "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs",
        "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb", "smb2", "smb3", "smbfs", "vboxsf",
        "wekafs",
    }
)  # fmt: skip
# The root file system of containers that run without root.
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs"})


def file_system_of(path: Path, table: str | None = None) -> str | None:
    """Return the type of the file system of a path, such as `ext4` or `fuse.sshfs`; None if the system doesn't say.

    Args:
        path: it need not exist; then that of the folder in which it would be made.
        table: content of mountinfo (default: that of this process).
    """
    if table is None:
        try:
            table = _TABLE.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    there = PurePosixPath(path.resolve())
    found: tuple[int, str] | None = None
    for line in table.splitlines():
        point, kind = _mount(line)
        if point is None or not there.is_relative_to(point):
            continue
        depth = len(point.parts)
        if found is None or depth >= found[0]:  # of several mounts on one folder the last one is seen
            found = depth, kind
    return None if found is None else found[1]


def is_network(kind: str) -> bool:
    """True for the type of a file system that other hosts may write to, too."""
    return kind in _NETWORK or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)


def _mount(line: str) -> tuple[PurePosixPath | None, str]:
    """Return the folder and the type of a line: `36 35 98:0 /root /point options [more…] - type source options`."""
    left, _, right = line.partition(" - ")
    fields = left.split(" ")
    if len(fields) < 6 or not right:
        return None, ""
    point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4])
    return PurePosixPath(point), right.split(" ")[0]
