"""Contract of both stores: a value is replaced only by a caller that saw the last one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.servers.redis_server import RedisServer

from app.state.base import SessionStore
from app.state.memory import MemoryStore
from app.state.redis.store import RedisStore


@pytest.fixture(params=["memory", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[float], SessionStore]]:
    """Makes a store with a time to live in seconds."""
    if request.param == "memory":
        yield lambda ttl_s: MemoryStore(ttl_s, 100)
        return
    with RedisServer(tmp_path / "redis") as server:
        yield lambda ttl_s: RedisStore(server.url, ttl_s)


@pytest.fixture
def store(make: Callable[[float], SessionStore]) -> Iterator[SessionStore]:
    """Empty; sessions live for a minute."""
    store = make(60)
    yield store
    store.close()


def _token(store: SessionStore, session_id: str = "a") -> bytes:
    snapshot = store.load(session_id)
    assert snapshot is not None
    return snapshot.token


def test_a_value_comes_back_byte_by_byte(store: SessionStore) -> None:
    """Any bytes, of each session its own; nothing before the first."""
    value = bytes(range(256)) * 40
    assert store.load("a") is None
    assert store.save("a", value, None)
    assert store.save("b", b"", None)
    for session_id, expected in (("a", value), ("b", b"")):
        snapshot = store.load(session_id)
        assert snapshot is not None
        assert snapshot.value == expected


def test_only_who_saw_the_last_value_replaces_it(store: SessionStore) -> None:
    """An older token, no token, or the token of a session that is gone changes nothing."""
    assert store.save("a", b"1", None)
    first = _token(store)
    assert not store.save("a", b"x", None)
    assert store.save("a", b"2", first)
    assert not store.save("a", b"x", first)
    second = _token(store)
    assert store.delete("a")
    assert not store.save("a", b"x", second)
    assert store.load("a") is None


def test_a_session_that_began_anew_is_another_one(store: SessionStore) -> None:
    """A value read before the reset can't be written after it, even over an equal value."""
    assert store.save("a", b"1", None)
    before = _token(store)
    assert store.delete("a")
    assert store.save("a", b"1", None)
    assert not store.save("a", b"2", before)


def test_delete_says_whether_there_was_a_session(store: SessionStore) -> None:
    """True once, then false."""
    assert store.save("a", b"1", None)
    assert [store.delete("a"), store.delete("a")] == [True, False]


def test_no_update_is_lost_between_threads(store: SessionStore) -> None:
    """Eight threads add one, 40 times each, trying again when another was faster: 320."""
    assert store.save("a", b"0", None)

    def add() -> None:
        for _ in range(40):
            while True:
                snapshot = store.load("a")
                assert snapshot is not None
                if store.save("a", str(int(snapshot.value) + 1).encode(), snapshot.token):
                    break

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(add) for _ in range(8)]:
            done.result()
    snapshot = store.load("a")
    assert snapshot is not None
    assert snapshot.value == b"320"


def test_a_closed_store_may_be_closed_again(store: SessionStore) -> None:
    """Shutdown after a failed start does so."""
    store.close()
    store.close()
