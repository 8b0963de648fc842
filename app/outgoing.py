"""The guard of every connection to an address that a caller names.

A URL is called only if the operator lists its host, and only at an address that was checked: a name is resolved once,
all its addresses are judged, and the connection goes to one of these, never to the name. A name that resolves
differently a moment later therefore changes nothing. Redirects are not followed here; code that follows one passes each
new URL to `UrlGuard.target`, as if a caller had sent it.

Addresses that the Internet doesn't route (private, loopback, link-local and others of the IANA registries) are refused
unless the operator lists their network. IPv6 addresses that stand for an IPv4 address are judged as that address, too.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from app.addresses import Network, plain_address
from app.errors import InvalidParameter, UrlRefused

_log = logging.getLogger(__name__)
LONGEST_URL = 2048
_PORTS = {"http": 80, "https": 443}
_OF_IPV4 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))  # NAT64, compatible
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
SocketAddress = tuple[socket.AddressFamily, tuple[Any, ...]]
Resolve = Callable[[str, int], Sequence[SocketAddress]]


def resolve(host: str, port: int) -> list[SocketAddress]:
    """Return the addresses of a host, in the system's order of preference.

    Raises:
        OSError: it has none, or no name server answers.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except UnicodeError as error:  # an empty or overlong label
        raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from error
    return [(family, address) for family, _, _, _, address in found]


@dataclass(frozen=True, slots=True)
class Target:
    """A URL whose host and addresses were checked. `path` includes the query."""

    secure: bool
    host: str
    port: int
    path: str
    addresses: tuple[SocketAddress, ...]

    def connection(self, limit_s: float) -> Connection:
        """A connection that is not open yet."""
        return Connection(self, limit_s)


class UrlGuard:
    """See the module.

    Args:
        hosts: as `app.addresses.hosts` reads them; none: every URL is refused.
        allowed: networks whose addresses may be called although the Internet doesn't route them.
        setting: name of the setting that lists the hosts, for messages.
        resolve: finds the addresses of a host.
        longest: most characters of a URL.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        allowed: Sequence[Network] = (),
        *,
        setting: str,
        resolve: Resolve = resolve,
        longest: int = LONGEST_URL,
    ) -> None:
        self._hosts = hosts
        self._allowed = allowed
        self._setting = setting
        self._resolve = resolve
        self._longest = longest

    def check(self, url: str) -> tuple[str, str, int, str]:
        """Check all but the addresses; return scheme, host, port, and path with query.

        Raises:
            InvalidParameter: it is no URL that can be called.
            UrlRefused: its host isn't listed.
        """
        scheme, host, port, path = _parts(url, self._longest)
        if not any(_fits(host, pattern) for pattern in self._hosts):
            known = "doesn't list it" if self._hosts else "is empty"
            raise UrlRefused(f"the host {host[:255]!r} may not be called: {self._setting} {known}")
        return scheme, host, port, path

    def target(self, url: str) -> Target:
        """Check a URL and the addresses of its host, and return what may be connected to.

        Raises:
            InvalidParameter: it is no URL that can be called.
            UrlRefused: its host isn't listed, or one of its addresses isn't allowed.
            OSError: its host can't be resolved.
        """
        scheme, host, port, path = self.check(url)
        addresses = tuple(self._resolve(host, port))
        for _, address in addresses:
            if not self._may_call(ipaddress.ip_address(address[0].partition("%")[0])):
                _log.warning("refused to call %s: GATEWAY_ALLOWED_NETWORKS doesn't list %s", host, address[0])
                raise UrlRefused(
                    f"the host {host[:255]!r} may not be called: it has a private, loopback, link-local or other "
                    "special address, and GATEWAY_ALLOWED_NETWORKS doesn't list its network"
                )
        return Target(scheme == "https", host, port, path, addresses)

    def _may_call(self, address: Address) -> bool:
        """The address is listed, or the Internet routes it; for one that stands for others, they decide."""
        if any(address in network for network in self._allowed):
            return True
        meant = embedded(address)
        return all(map(self._may_call, meant)) if meant else address.is_global and not _special(address)


class Connection(http.client.HTTPConnection):
    """HTTP or HTTPS to the checked addresses of a target, whatever its name resolves to by now.

    Args:
        target: where to.
        limit_s: time for connecting, and for every single wait afterwards; `abort` ends all of it.
    """

    def __init__(self, target: Target, limit_s: float) -> None:
        self.default_port = _PORTS["https" if target.secure else "http"]
        super().__init__(target.host, target.port, timeout=limit_s)
        self._target = target
        self._limit_s = limit_s
        self.aborted = False
        self._wire: socket.socket | None = None  # `sock` is gone once an answer's head has come

    def connect(self) -> None:
        """Connect to the first address that answers.

        Raises:
            OSError: none does; ssl.SSLError, which is one: the certificate can't be verified.
        """
        self.sock = self._wire = self._dialled(time.monotonic() + self._limit_s)
        if self._target.secure:
            context = ssl.create_default_context()
            self.sock = self._wire = context.wrap_socket(
                self.sock, server_hostname=self._target.host, do_handshake_on_connect=False
            )
            self._check()
            self.sock.do_handshake()
        self._check()

    def getresponse(self) -> http.client.HTTPResponse:
        """Return the head of the answer; one that `abort` cut short is none, though it may look whole."""
        answer = super().getresponse()
        self._check()
        return answer

    def abort(self) -> None:
        """End whatever another thread does with the connection; it meets an OSError or an HTTPException."""
        self.aborted = True
        self._check(quietly=True)

    def _check(self, *, quietly: bool = False) -> None:
        if not self.aborted:
            return
        if self._wire is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._wire, socket.SHUT_RDWR)
        if not quietly:
            raise ConnectionAbortedError("the connection was given up")

    def _dialled(self, until: float) -> socket.socket:
        last: OSError = OSError("the host has no address")
        for family, address in self._target.addresses:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.settimeout(max(0.001, until - time.monotonic()))
            try:
                sock.connect(address)
            except OSError as error:
                sock.close()
                last = error
                continue
            sock.settimeout(self._limit_s)
            return sock
        raise last


def embedded(address: Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address stands for: mapped, compatible, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _OF_IPV4):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]


def _special(address: Address) -> bool:
    """True for what the standard library calls global on some versions, and no host of the Internet has."""
    if isinstance(address, ipaddress.IPv6Address) and (address.is_site_local or address in _LOCAL_NAT64):
        return True
    return address.is_multicast or address.is_reserved or address.is_unspecified


def _fits(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return pattern in ("*", host)


def _parts(url: str, longest: int) -> tuple[str, str, int, str]:
    """Take a URL apart.

    Raises:
        InvalidParameter: it is no plain http or https URL.
    """
    if len(url) > longest or not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        raise InvalidParameter(
            f"a URL has at most {longest} printable ASCII characters and no backslash; percent-encode all others"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidParameter(f"the URL can't be read: {error}") from None
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in _PORTS or not host or port == 0:
        raise InvalidParameter("a URL begins with http:// or https:// and a host")
    if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
        raise InvalidParameter("the host of a URL is a name in ASCII (xn--… for others) or an address")
    if "@" in parts.netloc or parts.fragment:
        raise InvalidParameter("a URL that is called has no user, password or fragment")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, plain_address(host), port or _PORTS[parts.scheme], path
