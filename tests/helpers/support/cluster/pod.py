"""Containers of a rendered pod, run as Kubernetes runs them, but without Kubernetes.

Each has a root file system of its own that can't be written: folders of this machine in place of the image's, and the
pod's volumes where the chart mounts them. All run as the pod's user, without capabilities, in the network and with the
`/dev/shm` of one host (`support.cluster.hosts`). Triton is the one of `make triton`, with the container's arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.local.triton import Server
from support.cluster.hosts import Host
from support.paths import ROOT
from support.waiting import PATIENCE_S

_VENV = ROOT / ".venv-triton"
_TAKEN = ("HOST", "PORT", "VIDEOS_FOLDER", "SPOOL_FOLDER", "TEXT_CACHE_FOLDER")
# The machine's folders that stand for the image's: programs, and this project with its Pythons.
_IMAGE = ("/usr", "/etc", "/proc", "/sys", "/dev")
_BACKENDS = (
    "/opt/tritonserver/backends"  # where the image has them: a path without a space, which they can't have
)
# Arguments: the folder for the root, user, group, a line per mount (source, target, ro or rw), then the command.
_START = r"""
set -e
root=$1 user=$2 group=$3 mounts=$4
shift 4
mount -t tmpfs -o mode=755 root "$root"
for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
printf '%s\n' "$mounts" | while IFS='	' read -r source target mode; do
  mkdir -p "$root$target"
  mount --rbind "$source" "$root$target"
  [ "$mode" = rw ] || mount -o remount,bind,ro "$root$target"
done
mount -o remount,ro "$root"
exec /usr/sbin/chroot "$root" setpriv --reuid="$user" --regid="$group" --clear-groups --no-new-privs \
  --inh-caps=-all --bounding-set=-all sh -c 'cd /srv/gateway && exec "$@"' sh "$@"
"""


class Pod:
    """The containers of a pod's spec on a host.

    Args:
        spec: of the rendered Deployment's template.
        host: its network, and its `/dev/shm`.
        folder: for volumes and logs.
    """

    def __init__(self, spec: Mapping[str, Any], host: Host, folder: Path) -> None:
        self._host = host
        self._folder = folder
        self._user = spec["securityContext"]
        self._containers = {
            one["name"]: one for one in (*spec.get("initContainers", ()), *spec["containers"])
        }
        self._volumes = {one["name"]: self._volume(one) for one in spec["volumes"]}

    def run(self, name: str) -> None:
        """Run an init container to its end.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        subprocess.run(self._command(name), check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE_S)

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Context manager with a container that runs, for signals; it is killed at the end if it still runs."""
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(self._command(name), stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.kill()
            process.wait(PATIENCE_S)

    def probe(self, name: str, probe: str) -> bool:
        """Run the command of a container's probe as it would run inside; return True for success."""
        command = self._containers[name][probe]["exec"]["command"]
        done = subprocess.run(
            self._enter(name, command), capture_output=True, check=False, timeout=PATIENCE_S
        )
        return done.returncode == 0

    def log(self, name: str) -> Path:
        """Return the file with a container's output."""
        return self._folder / f"{name}.log"

    def _volume(self, volume: Mapping[str, Any]) -> Path:
        if volume.get("emptyDir", {}).get("medium") == "Memory":
            return Path("/dev/shm")  # the host's own
        path = self._folder / "volumes" / str(volume["name"])
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)  # Kubernetes gives it to the pod's fsGroup
        return path

    def _command(self, name: str) -> list[str]:
        container = self._containers[name]
        program, *arguments = container["args"]
        if program == "tritonserver":
            arguments += [f"--backend-directory={_BACKENDS}"]
            return self._enter(name, [str(_site() / "pytriton/tritonserver/bin/tritonserver"), *arguments])
        return self._enter(name, [f"{sys.prefix}/bin/gateway", program, *arguments])

    def _enter(self, name: str, command: Sequence[str]) -> list[str]:
        root = self._folder / "roots" / name
        root.mkdir(parents=True, exist_ok=True)
        mounts = "\n".join("\t".join(row) for row in self._mounts(name))
        variables = [f"{key}={value}" for key, value in self._environment(name).items()]
        user, group = str(self._user["runAsUser"]), str(self._user["runAsGroup"])
        return [
            *self._host.enter, "unshare", "--mount", "--propagation", "private", "sh", "-c", _START, "sh",
            str(root), user, group, mounts, "env", "-i", *variables, *command,
        ]  # fmt: skip

    def _mounts(self, name: str) -> Iterator[tuple[str, str, str]]:
        for folder in (*_IMAGE, *_projects()):
            yield folder, folder, "ro"
        yield str(ROOT / "profiles"), "/srv/gateway/profiles", "ro"
        if name == "triton":
            yield str(_backends()), _BACKENDS, "ro"
        for mount in self._containers[name]["volumeMounts"]:
            mode = "ro" if mount.get("readOnly") else "rw"
            yield str(self._volumes[mount["name"]]), mount["mountPath"], mode

    def _environment(self, name: str) -> dict[str, str]:
        """Return the image's variables and the container's, and nothing of this process."""
        found = {row["name"]: row["value"] for row in self._containers[name].get("env", ())}
        path = {"PATH": f"{sys.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        if name == "triton":
            path = {
                "PATH": f"{_VENV}/bin:/usr/bin:/bin",
                "LD_LIBRARY_PATH": str(_site() / "nvidia_pytriton.libs"),
            }
        return {**_image_variables(), **found, **path}


def _image_variables() -> dict[str, str]:
    """Return what the Dockerfile sets for every process of the image."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    found = dict(re.findall(r"^(?:ENV)?\s+((?:GATEWAY|PYTHON)\w+|HOME)=(\S+)", text, re.MULTILINE))
    assert {f"GATEWAY_{name}" for name in _TAKEN} <= found.keys()
    return found


def _projects() -> list[str]:
    """Return the folders of this project and of its Pythons, without those inside others."""
    found = {str(ROOT), str(_VENV.resolve()), sys.base_prefix, os.path.realpath(sys.prefix)}
    found |= {os.path.realpath(path) for path in sys.path if Path(path).is_dir()}
    return sorted(
        one for one in found if not any(one != other and Path(one).is_relative_to(other) for other in found)
    )


def _site() -> Path:
    (site,) = _VENV.resolve().glob("lib/python3.*/site-packages")
    return site


def _backends() -> Path:
    server = Server(argparse.Namespace(), _VENV, [])
    return server._backends()
