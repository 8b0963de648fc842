"""Sessions in memory end by idle time and by number, and both are told."""

from __future__ import annotations

import pytest

from app.state.memory import MemoryStore


class Clock:
    """Seconds that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Stands still."""
    return Clock()


def test_an_idle_session_ends(clock: Clock) -> None:
    """At its time to live after the last save, not before; a read doesn't prolong it, a save does."""
    ended: list[str] = []
    store = MemoryStore(10, 100, ended.append, clock)
    store.save("a", b"1", None)
    clock.now += 9.9
    snapshot = store.load("a")
    assert snapshot is not None
    store.save("a", b"2", snapshot.token)
    clock.now += 9.9
    assert store.load("a") is not None
    clock.now += 0.1
    assert store.load("a") is None
    assert not store.save("a", b"3", snapshot.token)
    assert not store.delete("a")
    assert ended == ["ttl"]


def test_the_number_of_sessions_is_bounded(clock: Clock) -> None:
    """The one whose last frame is longest ago goes; each is told once."""
    ended: list[str] = []
    store = MemoryStore(10, 2, ended.append, clock)
    for session_id in ("a", "b"):
        store.save(session_id, b"1", None)
        clock.now += 1
    snapshot = store.load("a")
    assert snapshot is not None
    store.save("a", b"2", snapshot.token)
    store.load("b")
    store.save("c", b"1", None)
    assert [store.load(session_id) is not None for session_id in "abc"] == [True, False, True]
    assert ended == ["lru"]
    assert store.live() == 2


def test_idle_sessions_are_counted_out_without_traffic(clock: Clock) -> None:
    """Asking how many live ends those that are over."""
    ended: list[str] = []
    store = MemoryStore(10, 100, ended.append, clock)
    for session_id in "abc":
        store.save(session_id, b"1", None)
        clock.now += 4
    assert store.live() == 2
    clock.now += 100
    assert store.live() == 0
    assert ended == ["ttl"] * 3
