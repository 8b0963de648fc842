"""Connection to a Ray cluster: its address, its nodes, and plain words for what goes wrong."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import worker

_log = logging.getLogger(__name__)

_LOCAL_STORE_BYTES = 100 << 20  # results are a few hundred bytes each; Ray takes no less than 75 MB
_DASHBOARD = "8265"
_CONNECT_S = 5.0
_OWN_KILL = "killed by `ray.kill`"  # a run ends its workers so
_DETAIL = re.compile(r"(?:exit detail|death cause|cause):\s*(.+?)(?:\.\s|\n|$)", re.IGNORECASE)


class Unusable(RuntimeError):
    """There is no Ray cluster to work on, or its nodes can't do the work."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Resources that one worker reserves on its node: CPUs, or 1 of the custom resource `triton`."""

    cpus: float = 2.0
    triton: bool = False

    @property
    def num_cpus(self) -> float:
        return 0.0 if self.triton else self.cpus

    @property
    def custom(self) -> dict[str, float]:
        return {"triton": 1.0} if self.triton else {}

    def room(self, node: Mapping[str, float]) -> int:
        """Return how many workers fit on a node with these resources."""
        return int(node.get("triton", 0.0) if self.triton else node.get("CPU", 0.0) // self.cpus)

    def __str__(self) -> str:
        return "1 triton" if self.triton else f"{self.cpus:g} CPU"


def connect(address: str | None, cpus: int, needs: Needs) -> bool:
    """Connect this process to a cluster; True: one was started for it, on this machine.

    Args:
        address: `host:port`, `auto` for the cluster that runs on this machine, `local` for one of its own; None: that
            of the variable RAY_ADDRESS, which Ray sets for its jobs, or else `local`.
        cpus: of the cluster if it is started here.
        needs: of a worker; a cluster that is started here has no resource `triton`.

    Raises:
        Unusable: there is none, or this process can't be part of it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # the processes of a local cluster inherit it
    address = _checked(address or os.environ.get("RAY_ADDRESS") or "local")
    local = address == "local"
    if local and needs.triton:
        raise Unusable("the resource triton is one of the nodes of a cluster: give its --address")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    own = {"num_cpus": cpus, "object_store_memory": _LOCAL_STORE_BYTES, "include_dashboard": False}
    worker.print_to_stdstream = _tell
    with _own_signals():
        try:
            ray.init(address, **quiet, **(own if local else {}))
        except Exception as error:
            raise Unusable(_words(address, error)) from error
    return local


def _tell(data: Mapping[str, Any], **_: Any) -> None:
    """Log a message of the cluster, such as that a node died.

    Ray has no option for that: with `log_to_driver=False` it still prints these on standard output.
    """
    for line in data["lines"]:
        if _OWN_KILL not in str(line):
            _log.warning("Ray: %s", " ".join(str(line).split()))


def _checked(address: str) -> str:
    """Return the address if something listens there.

    Raises:
        Unusable: it can't be the address of a cluster. Ray itself would try for minutes.
    """
    if address.startswith("ray://"):
        raise Unusable(
            f"--address {address}: Ray Client isn't supported; run the command on a node of the cluster with "
            "--address auto, or submit it with `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    if "://" in address or port == _DASHBOARD:
        raise Unusable(
            f"--address {address} is that of Ray's dashboard: submit the command with `ray job submit`, or give "
            "host:port of the head node (port 6379 by default)"
        )
    if address in ("auto", "local"):
        return address
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise Unusable(f"--address {address!r} is none of auto, local and host:port of the head node")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except OSError as error:
        raise Unusable(f"no Ray cluster answers at {address}: {error.strerror or error}") from error
    return address


def _words(address: str, error: Exception) -> str:
    """Say in one line why Ray can't be used at this address."""
    text = " ".join(str(error).split())
    if "version mismatch" in text.lower():
        return f"the Ray cluster at {address} has other versions of Ray or Python than this command: {text}"
    if isinstance(error, ConnectionError):
        return (
            f"there is no Ray cluster at {address}, or this machine is no node of it, or the cluster wants a token "
            f"(set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN unless ~/.ray/auth_token has it): {text}"
        )
    return f"Ray can't be used at {address}: {type(error).__name__}: {text}"


def summary(error: Exception) -> str:
    """Return how an actor ended, in one short line."""
    found = _DETAIL.search(str(error))
    return " ".join(found[1].split())[:200] if found else type(error).__name__


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handlers of signals: Ray sets one of its own for SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def room(needs: Needs) -> int:
    """Return how many workers fit on the nodes that are alive, if nothing else runs there."""
    return sum(needs.room(node["Resources"]) for node in ray.nodes() if node["Alive"])


def offered() -> str:
    """Return the cluster's resources in words."""
    total = ray.cluster_resources()
    kinds = {
        name: amount for name, amount in sorted(total.items()) if ":" not in name and "memory" not in name
    }
    return ", ".join(f"{amount:g} {name}" for name, amount in kinds.items()) or "none"


def is_alive(node: str) -> bool:
    """Return False for a node that Ray knows to be gone; that takes seconds where it went without a word."""
    return any(row["NodeID"] == node and row["Alive"] for row in ray.nodes())
