"""Names that resolve to several addresses: each is a server, and servers come and go with them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.models.engines import triton_engine
from support.models.repository import CATALOGUE
from support.servers.cable import Cable
from support.waiting import PATIENCE_S, eventually

from app.deadline import Deadline
from app.engine.endpoints.engine import EndpointOptions, TritonEndpoints
from app.engine.endpoints.names import Listed, Place, addresses_of, places
from app.engine.triton.engine import TritonEngine
from app.engine.weights import WeightsBook

if TYPE_CHECKING:
    from deploy.local.triton_server import TritonServer

DETECTOR = CATALOGUE.branches["yolo11n_320"]


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("gpu7", True),
        ("triton.models.svc", True),
        ("localhost", False),
        ("10.0.0.7", False),
        ("[::1]", False),
    ],
)
def test_only_a_name_is_looked_up(host: str, named: bool) -> None:
    """Addresses stand for themselves, and so does localhost, which has two addresses of one host."""
    assert Listed(host, 8001).named == named
    if not named:
        assert places(0, Listed(host, 8001), lambda *_: []) == [Place(f"{host}:8001", 0)]


def test_each_address_of_a_name_is_a_server() -> None:
    """It keeps the name, which certificates have; IPv6 addresses get their brackets."""
    found = places(2, Listed("gpus", 8001), lambda *_: ["10.0.0.7", "fd00::7"])
    assert found == [Place("10.0.0.7:8001", 2, "gpus"), Place("[fd00::7]:8001", 2, "gpus")]


def test_the_resolver_is_the_system_s() -> None:
    """This host's own name resolves to one family of addresses; a name that can't exist is an OSError."""
    assert addresses_of("localhost", 8001) == ["127.0.0.1"]
    with pytest.raises(OSError, match=r"."):
        addresses_of("no-such-host.invalid", 8001)


@pytest.mark.long
@pytest.mark.triton
def test_servers_come_and_go_with_their_name(repository: Path, triton: TritonServer) -> None:
    """A name that doesn't resolve yet has no server; new addresses are served, and old ones are dropped."""
    port = int(triton.grpc_url.rpartition(":")[2])
    addresses: list[str] = []
    made: list[TritonEngine] = []

    def lookup(host: str, _: int) -> list[str]:
        if not addresses:
            raise socket.gaierror(f"{host} is not known")
        return addresses

    def one(place: Place) -> TritonEngine:
        book = WeightsBook(repository, None)
        made.append(triton_engine(place.target, book, endpoint=place.target, authority=place.name))
        return made[-1]

    other = Cable(triton.grpc_url, ("127.0.0.2", port))
    options = EndpointOptions(2, lookup_s=0.05, lookup_away_s=0.05)
    engine = TritonEndpoints(CATALOGUE, [Listed("gpus.example", port)], one, options, lookup)
    try:
        assert "gpus.example is not known" in (engine.ready()[DETECTOR.name].reason or "")
        addresses.append("127.0.0.1")
        eventually(lambda: engine.ready()[DETECTOR.name].ready)
        addresses.append("127.0.0.2")
        eventually(lambda: len(engine.endpoints()) == 2)
        eventually(lambda: all(states[DETECTOR.name].ready for states in engine.endpoints().values()))
        with engine.lease(DETECTOR, Deadline.after(PATIENCE_S)) as lease:
            assert lease.model.endpoint in (f"127.0.0.1:{port}", f"127.0.0.2:{port}")
            lease.run(Deadline.after(PATIENCE_S))
            del addresses[0]
            eventually(lambda: [*engine.endpoints()] == [f"127.0.0.2:{port}"])
            lease.run(Deadline.after(PATIENCE_S))  # what runs there is finished
        runs = engine.usage()
        eventually(made[0]._closing.is_set)
        assert engine.usage().reconnects >= runs.reconnects
        addresses.clear()  # a resolver that fails takes no server away
        engine._look_up()
        assert [*engine.endpoints()] == [f"127.0.0.2:{port}"]
    finally:
        engine.close()
        other.__exit__()
