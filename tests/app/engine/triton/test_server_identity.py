"""One server or several: what counters and versions say, on simulated servers."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from app.engine.triton.server_identity import EVIDENCE, LOOKS, WINDOW_S, Identity


@dataclass
class Server:
    """One Triton as far as its counters go."""

    count: int = 0
    last: int = 0

    def run(self, now: float) -> None:
        self.count += 1
        self.last = int(now * 1000)

    def load(self) -> None:
        self.count = self.last = 0


def pair(server: Server) -> dict[str, tuple[int, int]]:
    return {"m": (server.count, server.last)}


def looks(identity: Identity, now: float, server: Server, own: int, times: int = LOOKS) -> set[str]:
    """Some looks in a row, a millisecond apart."""
    found: set[str] = set()
    for number in range(times):
        found |= identity.look(now + number / 1000, pair(server), {"m": own})
    return found


def test_a_model_is_identified_after_several_looks() -> None:
    """One look less is not enough."""
    identity, server = Identity(), Server(5, 100)
    looks(identity, 1.0, server, 0, LOOKS - 1)
    assert not identity.identified("m")
    looks(identity, 2.0, server, 0, 1)
    assert identity.identified("m")


def test_a_model_that_counts_nothing_is_identified() -> None:
    """A server without statistics is not doubted for that."""
    assert Identity().identified("m")
    assert Identity().settled()


def test_a_reload_is_seen_and_identified_after_several_more_looks() -> None:
    """Counters that start from zero are a reload, not another server."""
    identity, server = Identity(), Server(5, 100)
    looks(identity, 1.0, server, 0)
    server.load()
    assert identity.look(2.0, pair(server), {}) == {"m"}
    assert not identity.identified("m")
    assert looks(identity, 2.1, server, 0) == set()
    assert identity.identified("m")
    assert identity.several(2.2) is None


def test_a_reload_that_our_own_runs_hide_is_seen() -> None:
    """The count has grown, but by less than the runs that this process has made."""
    identity = Identity()
    looks(identity, 1.0, Server(1, 100), 1)
    looks(identity, 1.5, Server(21, 1400), 21, 1)
    assert (
        identity.look(2.0, pair(Server(22, 1900)), {"m": 60}) == set()
    )  # the runs may still be on their way
    assert identity.look(2.5, pair(Server(22, 1900)), {"m": 60}) == {"m"}
    assert identity.several(2.5) is None


def test_a_single_run_that_nobody_counted_is_a_doubt() -> None:
    """One server idles, another one runs: the model isn't identified, however often the first is asked."""
    identity, idle = Identity(), Server()
    looks(identity, 1.0, idle, 0)
    for number in range(20):
        looks(identity, 2.0 + number, idle, 1)
    assert not identity.identified("m")
    assert identity.several(30.0) is None


def test_a_run_that_was_noted_late_is_doubted_no_longer_than_the_next_ones() -> None:
    """The counter had it before it was noted here: once more runs are all counted, nothing is missing."""
    identity, server = Identity(), Server(1, 100)
    looks(identity, 1.0, server, 0)
    looks(identity, 1.5, server, 1)
    looks(identity, 2.0, server, 1)
    assert not identity.identified("m")
    for number in range(20):
        server.run(3.0 + number)
        looks(identity, 3.1 + number, server, 2 + number)
    assert identity.identified("m")
    assert identity.several(30.0) is None


def test_two_idle_servers_are_told_apart() -> None:
    """The last inference moves into the past and back: several servers, after three contradictions."""
    identity, one, two = Identity(), Server(5, 100), Server(3, 103)
    for number in range(8):
        identity.look(1 + number / 100, pair(two if number % 2 else one), {})
    assert "counters of m" in (identity.several(1.2) or "")
    assert not identity.identified("m")


def test_a_server_that_never_ran_and_one_that_did_are_told_apart() -> None:
    """Counters of nothing look like a reload; the old last inference that comes back doesn't."""
    identity, one, two = Identity(), Server(1, 100), Server()
    for number in range(8):
        identity.look(1 + number / 100, pair(two if number % 2 else one), {})
    assert identity.several(1.2) is not None


@pytest.mark.parametrize("seed", range(20))
def test_two_servers_that_share_the_traffic_are_told_apart(seed: int) -> None:
    """Calls go to one of two at random, a run each 40 ms, a poll of several looks each half second: found in 30 s."""
    chance = random.Random(seed)
    identity, servers, own = Identity(), [Server(), Server()], 0
    for poll in range(60):
        for step in range(12):
            chance.choice(servers).run(poll / 2 + step / 25)
            own += 1
        for number in range(LOOKS):
            identity.look(poll / 2 + 0.49 + number / 1000, pair(chance.choice(servers)), {"m": own})
        if identity.several(poll / 2 + 0.5):
            return
    pytest.fail("not found")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("others", [0, 30], ids=["alone", "beside other clients"])
def test_one_server_with_reloads_is_never_taken_for_several(seed: int, others: int) -> None:
    """A reload every half second to two seconds under traffic, of this process and of others, for five minutes."""
    chance = random.Random(seed)
    identity, server, own, reload_at = Identity(), Server(), 0, 1.0
    for poll in range(600):
        for step in range(20):
            now = poll / 2 + step / 40
            if now >= reload_at:
                server.load()
                reload_at = now + chance.uniform(0.5, 2)
            if chance.random() < 0.5:
                server.run(now)
                own += 1
            for _ in range(others // 20 + 1 if others else 0):
                server.run(now)
        looks(identity, poll / 2 + 0.497, server, own - chance.randrange(3))
        assert identity.several(poll / 2 + 0.5) is None


def test_one_version_after_another_is_an_upgrade() -> None:
    """A version that is new contradicts nothing, nor does one way back."""
    identity = Identity()
    for now, version in ((1.0, "1"), (2.0, "2"), (3.0, "1")):
        identity.observe("m", version, now, now)
    assert identity.several(3.1) is None


def test_versions_that_go_back_and_forth_are_several_servers() -> None:
    """Three returns within ten seconds; they are forgotten ten seconds after the last."""
    identity = Identity()
    for number in range(2 + EVIDENCE):
        identity.observe("m", str(number % 2), 1 + number / 10, 1 + number / 10)
    assert "version of m goes back and forth" in (identity.several(2.0) or "")
    assert identity.several(2.0 + WINDOW_S) is None


def test_a_call_that_began_before_an_upgrade_contradicts_nothing() -> None:
    """Its answer names the old version later than the new one was seen."""
    identity = Identity()
    identity.observe("m", "1", 1.0, 1.0)
    identity.observe("m", "2", 2.0, 2.0)
    for number in range(5):
        identity.observe("m", "1", 1.9, 2.1 + number)
        identity.observe("m", "2", 2.2, 2.2 + number)
    assert identity.several(8.0) is None


def test_a_new_connection_asks_for_several_looks_and_proves_nothing() -> None:
    """Another server at the other end is a reload; the same one keeps what is known of its models."""
    identity, server = Identity(), Server(5, 100)
    looks(identity, 1.0, server, 0)
    identity.restart()
    assert identity.look(2.0, pair(server), {}) == set()
    assert not identity.identified("m")
    looks(identity, 2.1, server, 0)
    identity.restart()
    assert identity.look(3.0, {"m": (3, 90)}, {}) == {"m"}
    assert identity.several(3.1) is None
