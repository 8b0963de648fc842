"""Hosts of a test: network namespaces, each with a `/dev/shm` of its own, on one bridge.

This needs root and `ip`, `unshare` and `nsenter`. Where they are refused, every host is this machine: the programs are
the same, but all share the address 127.0.0.1 and one `/dev/shm`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LOCAL = "127.0.0.1"
# Addresses for benchmarks of networks (RFC 2544), which no machine of the Internet has.
_RANGE = ipaddress.ip_network("198.18.0.0/15")
# Each ends when its input ends: with `close()`, and with a test process that is killed.
_HOLD = "mount -t tmpfs shm /dev/shm && ip link set lo up && echo up && exec cat >/dev/null"
_GUARD = 'cat >/dev/null; ip link delete "$1"'


@dataclass(frozen=True, slots=True)
class Host:
    """One machine of the cluster.

    Args:
        name: for logs and reports.
        address: IPv4, reachable from this process and from all other hosts.
        enter: words before a command that runs it there; empty if the host is this machine.
    """

    name: str
    address: str = LOCAL
    enter: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """The hosts by name, and the address of this process as they see it."""

    hosts: dict[str, Host]
    address: str
    isolated: bool


@contextlib.contextmanager
def network(names: Sequence[str]) -> Iterator[Network]:
    """Make hosts; all of them, and what still runs in them, lose their network at the end."""
    with contextlib.ExitStack() as stack:
        made = _isolated(names, stack)
        yield made or Network({name: Host(name) for name in names}, LOCAL, isolated=False)


def _isolated(names: Sequence[str], stack: contextlib.ExitStack) -> Network | None:
    with contextlib.ExitStack() as made:
        try:
            found = _make(names, made)
        except (OSError, subprocess.CalledProcessError):
            return None  # no such rights, or no such program
        stack.push(made.pop_all())
    return found


def _make(names: Sequence[str], stack: contextlib.ExitStack) -> Network:
    bridge = f"tvg{secrets.token_hex(3)}"
    subnet = _free_subnet()
    addresses = [str(address) for address in subnet.hosts()]
    _run("ip", "link", "add", bridge, "type", "bridge")
    _held(stack, "sh", "-c", _GUARD, "sh", bridge)
    _run("ip", "address", "add", f"{addresses[0]}/{subnet.prefixlen}", "dev", bridge)
    _run("ip", "link", "set", bridge, "up")
    hosts = {}
    for number, name in enumerate(names, 1):
        where = f"{addresses[number]}/{subnet.prefixlen}"
        hosts[name] = Host(name, addresses[number], _host(stack, bridge, f"{bridge}n{number}", where))
    return Network(hosts, addresses[0], isolated=True)


def _host(stack: contextlib.ExitStack, bridge: str, link: str, address: str) -> tuple[str, ...]:
    """Make one namespace on the bridge; return the command that enters it."""
    holder = _held(stack, "unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", _HOLD)
    assert holder.stdout is not None
    if holder.stdout.readline() != b"up\n":
        raise OSError("no namespace of its own")
    pid = str(holder.pid)
    enter = ("nsenter", "--target", pid, "--net", "--mount", "--")
    _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pid)
    _run("ip", "link", "set", link, "master", bridge, "up")
    _run(*enter, "ip", "address", "add", address, "dev", "eth0")
    _run(*enter, "ip", "link", "set", "eth0", "up")
    return enter


def _held(stack: contextlib.ExitStack, *command: str) -> subprocess.Popen[bytes]:
    """Start a program that ends when its input does."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )

    def end() -> None:
        process.communicate()  # closes its input and waits

    stack.callback(end)
    return process


def _free_subnet() -> ipaddress.IPv4Network:
    """A network of 254 addresses that no interface of this machine has."""
    shown = subprocess.run(
        ["ip", "-4", "-brief", "address"], capture_output=True, text=True, check=True
    ).stdout
    while True:
        first = int(_RANGE.network_address) + secrets.randbelow(512) * 256
        subnet = ipaddress.IPv4Network((first, 24))
        if f" {str(subnet.network_address).removesuffix('.0')}." not in shown:
            return subnet


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C"})
