"""No caller's URL reaches an address that the operator didn't allow, however it is written."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from support.paths import ROOT

from app.addresses import hosts, networks
from app.errors import InvalidParameter, UrlRefused
from app.outgoing import SocketAddress, UrlGuard

URL = "http://hooks.example.com/videos"


def guard(*addresses: str, listed: str = "hooks.example.com", allowed: str = "") -> UrlGuard:
    """A guard for which every name has these addresses."""

    def resolve(_: str, port: int) -> list[SocketAddress]:
        return [
            (socket.AF_INET6, (one, port, 0, 0)) if ":" in one else (socket.AF_INET, (one, port))
            for one in addresses
        ]

    return UrlGuard(hosts(listed), networks(allowed), setting="GATEWAY_X", resolve=resolve)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.1", "0.0.0.0",  # noqa: S104  # refused, not bound
        "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254",
        "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
        "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1",
        "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::1", "2002:a00:1::",
        "2001:0:a00:1::", "100::1",
    ],
)  # fmt: skip
def test_special_addresses_are_refused(address: str) -> None:
    """Alone, and beside an address of the Internet."""
    for addresses in ([address], ["8.8.8.8", address]):
        with pytest.raises(UrlRefused, match="GATEWAY_ALLOWED_NETWORKS"):
            guard(*addresses).target(URL)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_addresses_of_the_internet_are_called(address: str) -> None:
    """IPv6 addresses that stand for one of IPv4 are judged as that one."""
    assert [place[0] for _, place in guard(address).target(URL).addresses] == [address]


@pytest.mark.parametrize(
    ("allowed", "address"),
    [
        ("127.0.0.0/8", "127.0.0.1"), ("127.0.0.1", "::ffff:127.0.0.1"), ("10.0.0.0/8, 192.168.1.7", "192.168.1.7"),
        ("fd00::/8", "fd12::1"), ("::1", "::1"), ("fe80::/10", "fe80::1%eth0"), ("10.0.0.0/8", "64:ff9b::a01:203"),
    ],
)  # fmt: skip
def test_listed_networks_are_called(allowed: str, address: str) -> None:
    """The operator's list decides, also for the other way to write an address."""
    assert guard(address, allowed=allowed).target(URL).addresses


def test_a_listed_network_allows_no_other() -> None:
    """Neither the next address, nor a name that also has another."""
    for addresses in (["10.0.1.1"], ["10.0.0.1", "127.0.0.1"]):
        with pytest.raises(UrlRefused):
            guard(*addresses, allowed="10.0.0.0/24").target(URL)


@pytest.mark.parametrize(
    ("listed", "called", "refused"),
    [
        ("a.example", "http://A.Example./x", "http://b.a.example/"),
        ("*.a.example", "https://b.a.example:8443/x?y=1", "http://a.example/"),
        ("*.a.example", "http://c.b.a.example", "http://ba.example/"),
        ("*", "http://anything.example", None),
        ("a.example, [::1]", "http://[0:0::1]:80/", "http://[::2]/"),
        ("10.0.0.1", "http://10.0.0.1/", "http://10.0.0.1.example/"),
        ("", None, "http://a.example/"),
    ],
)
def test_only_listed_hosts_are_called(listed: str, called: str | None, refused: str | None) -> None:
    """By name; a domain's star stands for the names below it."""
    judge = guard("8.8.8.8", listed=listed)
    if called is not None:
        judge.target(called)
    if refused is not None:
        with pytest.raises(UrlRefused, match="GATEWAY_X"):
            judge.target(refused)


@pytest.mark.parametrize(
    "url",
    [
        "", "hooks.example.com", "ftp://hooks.example.com/", "file:///etc/passwd", "http://", "http:///x", "//a/x",
        "http://user@hooks.example.com/", "http://user:word@hooks.example.com/", "http://@hooks.example.com/",
        "http://hooks.example.com/#part", "http://hooks.example.com:0/", "http://hooks.example.com:99999/",
        "http://hooks.example.com:x/", "http://[::1", "http://hooks.example.com/a b", "http://hooks.example.com\\@x/",
        "http://hooks.example.com/\r\nx: y", "http://h\u00f6oks.example.com/", "http://[fe80::1%25eth0]/",
        "http://hooks.example.com/" + "x" * 2048, "http://hooks.example.com%2f@x/", "gopher://hooks.example.com/",
    ],
)  # fmt: skip
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    """Before any name is resolved."""
    with pytest.raises(InvalidParameter):
        guard(listed="*").target(url)


@pytest.mark.parametrize(
    "host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "[::ffff:7f00:1]"]
)
def test_other_ways_to_write_loopback_are_refused(host: str) -> None:
    """The system's resolver reads them; the address that it finds is judged."""
    judge = UrlGuard(("*",), (), setting="GATEWAY_X")
    with pytest.raises((UrlRefused, socket.gaierror)):
        judge.target(f"http://{host}:9/")


@pytest.mark.parametrize(
    "text", ["http://a.example", "a.example/x", "a.example:80", "a.*.example", "*a", "a b", "::x"]
)
def test_what_is_no_host_is_no_setting(text: str) -> None:
    """A wrong entry stops the start; it would allow nothing, or too much."""
    with pytest.raises(ValueError, match="list of hosts"):
        hosts(text)


@pytest.fixture
def receiver() -> Iterator[tuple[int, list[str]]]:
    """A server on loopback: its port, and the `Host` of each request."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["host"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1], seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_checked_address_is_called_whatever_the_name_says_later(receiver: tuple[int, list[str]]) -> None:
    """The name is resolved once; the connection goes to that address, and names the host."""
    port, seen = receiver
    answers = [[(socket.AF_INET, ("127.0.0.1", port))]]
    judge = UrlGuard(
        ("hooks.example.com",), networks("127.0.0.0/8"), setting="GATEWAY_X", resolve=lambda *_: answers.pop()
    )
    target = judge.target(f"http://hooks.example.com:{port}/x")
    connection = target.connection(30.0)
    connection.request("GET", target.path)
    assert connection.getresponse().status == 204
    connection.close()
    assert seen == [f"hooks.example.com:{port}"]


def test_the_next_address_is_tried(receiver: tuple[int, list[str]]) -> None:
    """A host of several addresses is reached while one of them answers."""
    port, seen = receiver
    with socket.socket() as closed:  # bound, and not listening: it refuses
        closed.bind(("127.0.0.1", 0))
        places = [
            (socket.AF_INET, ("127.0.0.1", closed.getsockname()[1])),
            (socket.AF_INET, ("127.0.0.1", port)),
        ]
        judge = UrlGuard(
            ("a.example",), networks("127.0.0.1"), setting="GATEWAY_X", resolve=lambda *_: places
        )
        target = judge.target("http://a.example/")
        connection = target.connection(30.0)
        connection.request("GET", "/")
        assert connection.getresponse().status == 204
        connection.close()
    assert len(seen) == 1


# What calls nobody that a caller names: its own service, a gateway that the user names, an operator's collector.
OTHERS = {"app/process/health.py", "app/commands/smoke/http.py"}


def test_nothing_else_in_the_service_opens_connections_by_http() -> None:
    """One guard, in one module: an HTTP client elsewhere would go past it."""
    client = re.compile(
        r"^\s*(import|from) (http\.client|urllib\.request|httpx2?|requests|aiohttp)\b", re.MULTILINE
    )
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "app").rglob("*.py")
        if client.search(Path(path).read_text(encoding="utf-8"))
    }
    assert found == OTHERS | {"app/outgoing.py", "app/videos/webhooks.py", "app/videos/sources/transfer.py"}


def test_networks_are_written_as_such() -> None:
    """A network with host bits, or a word, stops the start."""
    assert networks(" 10.0.0.0/8 , ::1 ") == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))
    for text in ("10.0.0.1/8", "localhost", "10.0.0.0-10.0.0.9"):
        with pytest.raises(ValueError, match="list of addresses and networks"):
            networks(text)
