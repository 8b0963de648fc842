"""One folder of video jobs and two hosts: the second one is refused, while the first one lives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT
from support.servers.gateway import server
from support.waiting import PATIENCE_S, eventually

from app.state.host_mark import NAME
from deploy.local.triton_server import free_ports

# A host of its own to the gateway: another name, and the boot of another kernel where `$1` has its id.
_HOST = """
set -e
hostname "$0"
[ -z "$1" ] || mount --bind "$1" /proc/sys/kernel/random/boot_id
shift
exec "$@"
"""


def _boot(folder: Path, text: str) -> Path:
    path = folder / f"{text}.boot"
    path.write_text(f"{text}\n")
    return path


def _serve(
    repository: Path, videos: Path, host: str, boot: Path | None, log: Path
) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {
        "GATEWAY_REPOSITORY": str(repository),
        "GATEWAY_VARIANT": "n",
        "GATEWAY_MANIFEST": "",
        "GATEWAY_VIDEOS_FOLDER": str(videos),
    }
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(free_ports(1)[0])]
    with log.open("wb") as out:
        return subprocess.Popen(
            ["unshare", "--uts", "--mount", "sh", "-c", _HOST, host, "" if boot is None else str(boot), *command],
            cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    made = subprocess.run(["unshare", "--uts", "--mount", "true"], check=False, capture_output=True)
    if made.returncode != 0:
        pytest.skip("no namespaces: this needs root")


def test_a_second_host_is_refused_and_a_container_is_not(repository: Path, tmp_path: Path) -> None:
    """Another kernel's gateway doesn't start; one of the same kernel with another host name does."""
    videos = tmp_path / "videos"
    with server(repository, tmp_path / "first.log", videos_folder=videos) as (http, _):
        eventually((videos / NAME).exists)
        other = _serve(repository, videos, "other", _boot(tmp_path, "other"), tmp_path / "other.log")
        assert other.wait(PATIENCE_S) == 2
        words = (tmp_path / "other.log").read_text()
        assert "GATEWAY_VIDEOS_FOLDER" in words
        assert "another host" in words
        assert "GATEWAY_JOB_STORE=postgresql://" in words
        container = _serve(repository, videos, "container", None, tmp_path / "container.log")
        try:
            eventually(lambda: len(list((videos / ".owners").iterdir())) == 2)
        finally:
            container.terminate()
            container.wait(PATIENCE_S)
        assert http.get("/v1/videos").status_code == 200
    assert not (videos / NAME).exists()


def test_the_folder_of_a_host_that_died_is_taken_over(repository: Path, tmp_path: Path) -> None:
    """After a crash, the mark is watched for some seconds, and then replaced."""
    videos = tmp_path / "videos"
    dead = _serve(repository, videos, "dead", _boot(tmp_path, "dead"), tmp_path / "dead.log")
    eventually((videos / NAME).exists)
    dead.kill()
    dead.wait()
    assert (videos / NAME).read_text() == "dead"
    with server(repository, tmp_path / "next.log", videos_folder=videos) as (http, _):
        eventually(lambda: (videos / NAME).read_text() != "dead")
        assert http.get("/v1/videos").status_code == 200
