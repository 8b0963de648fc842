"""Two Tritons behind one address, as behind a balancer or a name with several addresses: no false provenance."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.models import repository as test_repository
from support.servers.balancer import Balancer
from support.servers.cable import Cable
from support.servers.gateway import client
from support.waiting import eventually
from support.witness import STEADY, Witness, digest_of, put_graph, put_note

from deploy.local.triton_server import TritonServer

pytestmark = pytest.mark.triton


class Pair:
    """Two Tritons: class 1 by the first, class 2 by the second; `view` has the files of both versions.

    With equal versions the view has those of the first.
    """

    def __init__(self, folder: Path, versions: tuple[str, str]) -> None:
        plain = test_repository.build(folder / "plain", [STEADY])
        self.truth = {1 + shift: digest_of(plain, shift) for shift in (0, 1)}
        self.view = folder / "view"
        shutil.copytree(plain, self.view)
        self.servers = []
        self.other = versions[0] != versions[1]
        for shift, version in enumerate(versions):
            models = folder / f"models{shift}"
            shutil.copytree(plain, models)
            shutil.rmtree(models / STEADY / "1")
            put_graph(plain, shift, "9")
            put_note(plain, shift, "9")
            for place in (models, self.view):
                if place is models or version != versions[0] or not shift:
                    shutil.copytree(plain / STEADY / "9", place / STEADY / version, dirs_exist_ok=True)
            shutil.rmtree(plain / STEADY / "9")
            self.servers.append(TritonServer(models, folder / f"triton{shift}.log", load=[STEADY]))


OTHER, EQUAL = ("1", "2"), ("1", "1")


@pytest.fixture(scope="module", params=[OTHER, EQUAL], ids=["other versions", "equal versions"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as stack:
        made = Pair(tmp_path_factory.mktemp("pair"), request.param)
        for server in made.servers:
            stack.enter_context(server)
            stack.callback(server.kill)
        yield made


WAYS = {
    "in turn": lambda turn, _: next(turn) % 2,
    "at random": lambda _, __, chance=random.Random(5): chance.randrange(2),  # noqa: B008  # one for all calls
    "polls to one": lambda turn, method: next(turn) % 2 if method.endswith("ModelInfer") else 0,
    "answers to the other": lambda _, method: int(method.endswith("ModelInfer")),
}


# Polls that all reach one server, always or by chance, can't see that another one answers under the same version.
UNSEEN = ("at random", "polls to one", "answers to the other")


@pytest.mark.parametrize("way", list(WAYS))
def test_a_balancer_in_front_of_two_is_refused_without_a_false_answer(pair: Pair, way: str) -> None:
    """The refusal has its own code and reason, /readyz is red; until then no answer names the other's weights."""
    turn = itertools.count()
    with Balancer([server.grpc_url for server in pair.servers]) as balancer:
        balancer.choose = lambda method: WAYS[way](turn, method)
        over = {"engine": "triton", "triton_url": balancer.url, "triton_transport": "bytes"}
        with client(pair.view, wait=False, **over) as gateway:
            witness = Witness(gateway, pair.truth)
            eventually(lambda: witness.ask() or witness.refused["503 several_servers"] > 0, 120)
            assert witness.wrong == []
            if pair.other or way not in UNSEEN:
                assert witness.false == []
            assert gateway.get("/readyz").status_code == 503


@pytest.mark.parametrize("transport", ["bytes", "shared_memory"])
def test_an_address_that_leads_to_another_server_costs_no_answer(pair: Pair, transport: str) -> None:
    """Three failovers under traffic: each answer has the version of its server, and at least 9 of 10 are answered.

    Of equal versions, callers may be refused until the next poll, which on a busy machine is late.
    """
    with Cable(pair.servers[0].grpc_url) as cable:
        over = {"engine": "triton", "triton_url": cable.url, "triton_transport": transport}
        with client(pair.view, **over) as gateway, Witness(gateway, pair.truth) as witness:
            for server in (1, 0, 1):
                witness.more(60)
                cable.lead_to(pair.servers[server].grpc_url)
                eventually(lambda server=server: witness.last == 1 + server)  # type: ignore[misc]  # bound now
            witness.more(60)
        assert witness.wrong == []
        if pair.other:
            assert witness.refused.total() <= witness.answers / 10
            assert witness.false == []
            assert {version for found, version, _ in witness.seen if found == 2} == {"2"}
            assert {digest for _, _, digest in witness.seen} == {*pair.truth.values(), "unknown"}


@pytest.mark.parametrize("pair", [OTHER], ids=["other versions"], indirect=True)  # it sees one of them alone
@pytest.mark.parametrize("transport", ["bytes", "shared_memory"])
def test_one_server_is_never_refused_for_several(pair: Pair, transport: str) -> None:
    """Cut connections, four callers and a reload: at least 9 of 10 answers, all under one digest or `unknown`."""
    with Cable(pair.servers[0].grpc_url) as cable, ExitStack() as stack:
        over = {"engine": "triton", "triton_url": cable.url, "triton_transport": transport}
        gateway = stack.enter_context(client(pair.view, **over))
        callers = [stack.enter_context(Witness(gateway, pair.truth)) for _ in range(4)]
        for _ in range(5):
            callers[0].more(30)
            cable.cut()
        callers[0].more(30)
        for one in callers:
            assert one.wrong == one.false == []
        if pair.servers[0].died:
            pair.servers[0].revived()
            pytest.skip("Triton 2.51 died when its connections were cut")
        for one in callers:
            assert one.refused.total() <= one.answers / 10
        eventually(lambda: callers[0].known)
