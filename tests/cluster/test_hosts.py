"""The hosts of these tests are apart from each other, as machines are."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx2
import pytest
from support.cluster.hosts import Host, Network, network

from deploy.local.triton_server import TritonServer


def _says(host: Host, *command: str) -> str:
    done = subprocess.run([*host.enter, *command], capture_output=True, text=True, check=True)
    return done.stdout


def _interfaces() -> list[str]:
    command = ["ip", "-brief", "address"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def _isolated(made: Network) -> Network:
    if not made.isolated:
        pytest.skip("no network namespaces: this needs root")
    return made


def test_a_host_has_its_own_shared_memory_and_network() -> None:
    """A file in `/dev/shm` of one host is on no other, and each has its own address."""
    with network(["one", "other"]) as made:
        one, other = _isolated(made).hosts.values()
        _says(one, "touch", "/dev/shm/only-here")
        assert _says(one, "ls", "/dev/shm") == "only-here\n"
        assert _says(other, "ls", "/dev/shm") == ""
        assert not Path("/dev/shm/only-here").exists()
        assert one.address in _says(one, "ip", "-brief", "address", "show", "eth0")
        assert one.address not in _says(other, "ip", "-brief", "address")


def test_nothing_is_left_of_hosts() -> None:
    """The bridge and the links are gone afterwards."""
    with network(["one"]) as made:
        address = _isolated(made).address
        (bridge,) = (line.split()[0] for line in _interfaces() if f" {address}/" in line)
        assert len([line for line in _interfaces() if line.startswith(bridge)]) == 2
    assert [line for line in _interfaces() if line.startswith(bridge)] == []


@pytest.mark.triton
def test_a_triton_on_a_host_answers_this_process(repository: Path, tmp_path: Path) -> None:
    """A server in a host's namespaces is reached at the host's address, and ends with its test."""
    with network(["one"]) as made:
        host = made.hosts["one"]
        log = tmp_path / "triton.log"
        with TritonServer(repository, log, address=host.address, prefix=host.enter) as server:
            assert httpx2.get(f"{server.http_url}/v2/health/ready", timeout=60).status_code == 200
            pid = server.processes()[1].pid
            assert _says(host, "ls", "/dev/shm") != "" or not made.isolated
        assert not Path(f"/proc/{pid}").exists()
