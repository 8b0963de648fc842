"""File systems by the kernel's table of mounts, with lines that were recorded on real machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.state.mounts import file_system_of, is_network

TABLE = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
98 27 0:44 / /srv/share rw,relatime shared:49 - nfs4 10.0.0.2:/export rw,vers=4.2,proto=tcp
99 98 0:45 / /srv/share/local rw,relatime - tmpfs tmpfs rw
101 27 0:46 / /srv/with\040blank rw,nosuid - cifs //server/videos rw,vers=3.1.1
102 27 0:47 / /mnt/c rw,noatime - 9p C:\134 rw,dirsync,aname=drvfs
103 27 0:48 / /srv/bucket rw,nosuid,nodev - fuse.s3fs s3fs rw,user_id=0
104 27 0:49 / /srv/twice rw - nfs server:/a rw
105 27 0:50 / /srv/twice rw - xfs /dev/vdb rw
106 27 0:51 / /srv/gluster rw shared:60 master:3 propagate_from:2 - fuse.glusterfs server:/volume rw
107 27 0:52 / /srv/disk rw - fuseblk /dev/sdb1 rw
broken
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/srv/other/videos", "ext4", False),
        ("/srv/share", "nfs4", True),
        ("/srv/share/not/there/yet", "nfs4", True),
        ("/srv/shared", "ext4", False),  # no part of the path of another folder
        ("/srv/share/local/videos", "tmpfs", False),
        ("/srv/with blank/videos", "cifs", True),
        ("/mnt/c/Users", "9p", True),
        ("/srv/bucket/x", "fuse.s3fs", True),
        ("/srv/twice/x", "xfs", False),  # the mount on top is the one that is seen
        ("/srv/gluster", "fuse.glusterfs", True),
        ("/srv/disk", "fuseblk", False),
    ],
)
def test_the_mount_of_a_path(path: str, kind: str, network: bool) -> None:
    """The deepest folder counts, and of several mounts there the last."""
    assert file_system_of(Path(path), TABLE) == kind
    assert is_network(kind) == network


@pytest.mark.parametrize("kind", ["ceph", "lustre", "smb3", "fuse.sshfs", "glusterfs", "fuse"])
def test_file_systems_of_other_hosts(kind: str) -> None:
    """A kernel's or a user's program that talks to a server."""
    assert is_network(kind)


@pytest.mark.parametrize("kind", ["btrfs", "zfs", "overlay", "fuse.fuse-overlayfs", "xfs", "virtiofs"])
def test_file_systems_of_this_host(kind: str) -> None:
    """Disks, memory, and the layers of containers."""
    assert not is_network(kind)


def test_this_machine_s_own_table() -> None:
    """The kernel's table is there, and names the file system of /proc."""
    assert file_system_of(Path("/proc/self")) == "proc"
    assert file_system_of(Path("/")) is not None


def test_a_system_that_keeps_no_table_says_nothing() -> None:
    """No line fits: there is no answer, rather than a wrong one."""
    assert file_system_of(Path("/srv"), "") is None
