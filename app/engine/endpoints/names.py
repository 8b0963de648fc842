"""Addresses of servers: as they are listed, or as a name resolves to them."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Host and port -> the addresses of the host. Raises OSError where there are none.
Lookup = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of the list of servers; an IPv6 address stands in brackets."""

    host: str
    port: int

    @property
    def named(self) -> bool:
        """The host is a name that may resolve to several addresses; `localhost` is this host, whatever it says."""
        if self.host.lower() == "localhost":
            return False
        try:
            ipaddress.ip_address(self.host.strip("[]"))
        except ValueError:
            return True
        return False


@dataclass(frozen=True, slots=True)
class Place:
    """One server: `target` is `host:port`, `entry` the number of its entry in the list, from 0.

    `name`: that which resolved to the address; None: the address was listed.
    """

    target: str
    entry: int
    name: str | None = None


def addresses_of(host: str, port: int) -> list[str]:
    """Return the IPv4 addresses of a host, or its IPv6 addresses if it has no others; sorted.

    Both families usually lead to the same servers, so only one is used.

    Raises:
        OSError: the name doesn't resolve.
    """
    found: dict[int, set[str]] = {}
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        found.setdefault(family, set()).add(str(address[0]))
    return sorted(found.get(socket.AF_INET) or found.get(socket.AF_INET6) or ())


def places(entry: int, listed: Listed, lookup: Lookup) -> list[Place]:
    """Return the servers of one entry.

    Raises:
        OSError: its name doesn't resolve.
    """
    if not listed.named:
        return [Place(f"{listed.host}:{listed.port}", entry)]
    return [
        Place(
            f"[{address}]:{listed.port}" if ":" in address else f"{address}:{listed.port}", entry, listed.host
        )
        for address in lookup(listed.host, listed.port)
    ]
