"""Sessions in a real Redis: what stands there, and what happens while it is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from support.servers.redis_server import RedisServer
from support.waiting import PATIENCE_S

from app.errors import SessionsUnavailable
from app.state.redis.store import RedisStore, masked
from deploy.local.triton_server import free_ports


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisStore]:
    """Over the test's server."""
    store = RedisStore(redis_server.url, 60, timeout_s=PATIENCE_S)
    yield store
    store.close()


@pytest.fixture
def beside(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """Another client of the same server, to look inside."""
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


def _unavailable(store: RedisStore) -> SessionsUnavailable:
    with pytest.raises(SessionsUnavailable) as caught:
        store.load("a")
    assert caught.value.retry_after == 1
    return caught.value


def test_a_session_is_one_small_key_that_redis_ends_itself(store: RedisStore, beside: redis.Redis) -> None:
    """The key says what it is; the time to live begins again with every save, not with a read."""
    assert store.save("cam:1", b"value", None)
    assert beside.keys() == [b"gateway:session:cam:1"]
    assert beside.strlen("gateway:session:cam:1") == 8 + len(b"value")
    assert 30_000 < beside.pttl("gateway:session:cam:1") <= 60_000
    beside.pexpire("gateway:session:cam:1", 30_000)
    snapshot = store.load("cam:1")
    assert snapshot is not None
    assert beside.pttl("gateway:session:cam:1") <= 30_000
    assert store.save("cam:1", b"next", snapshot.token)
    assert beside.pttl("gateway:session:cam:1") > 30_000


def test_an_idle_session_ends_in_redis(redis_server: RedisServer) -> None:
    """After its time to live nothing is left of it."""
    store = RedisStore(redis_server.url, 0.05)
    assert store.save("a", b"1", None)
    time.sleep(0.1)
    assert store.load("a") is None
    store.close()


def test_a_save_whose_answer_got_lost_is_not_done_twice(store: RedisStore, beside: redis.Redis) -> None:
    """The client sends it again after a broken connection: the second time changes nothing and says yes."""
    key, value = "gateway:session:a", b"8 bytes.value"
    for _ in range(2):
        assert store._replace([key], [b"", value, 60_000]) == 1
    assert store._replace([key], [b"", b"other...value", 60_000]) == 0
    assert beside.get(key) == value


def test_a_server_that_forgot_the_script_gets_it_again(store: RedisStore, beside: redis.Redis) -> None:
    """The script is sent again, as after a restart or a failover."""
    assert store.save("a", b"1", None)
    beside.script_flush()
    assert store.save("b", b"1", None)


def test_a_restart_is_survived_on_the_same_store(store: RedisStore, redis_server: RedisServer) -> None:
    """Away, every call is refused at once; back, the next one is served by a connection made again."""
    assert store.save("a", b"1", None)
    redis_server.kill()
    started = time.monotonic()
    error = _unavailable(store)
    assert time.monotonic() - started < PATIENCE_S / 2
    assert f"redis://127.0.0.1:{redis_server.port}/0" in error.detail
    redis_server.start()
    assert store.load("a") is None
    assert store.save("a", b"2", None)


def test_a_server_that_restarted_meanwhile_is_not_noticed(
    store: RedisStore, redis_server: RedisServer
) -> None:
    """The pooled connection is dead: the call is done once more on a fresh one, without an error."""
    assert store.save("a", b"1", None)
    redis_server.kill()
    redis_server.start()
    assert store.save("a", b"2", None)


def test_a_server_that_hangs_is_given_up(store: RedisStore, redis_server: RedisServer) -> None:
    """Each method ends within its time limit, and works again with the server."""
    assert store.save("a", b"1", None)
    redis_server.suspend()
    hasty = RedisStore(redis_server.url, 60, timeout_s=0.3)
    for call in (
        lambda: hasty.load("a"),
        lambda: hasty.save("a", b"2", None),
        lambda: hasty.delete("a"),
    ):
        with pytest.raises(SessionsUnavailable, match=r"(?i)timeout"):
            call()
    hasty.close()
    redis_server.resume()
    assert store.load("a") is not None


def test_a_server_that_refuses_is_no_defect(store: RedisStore, beside: redis.Redis) -> None:
    """No memory left, or a key of another kind: unavailable, with Redis' own words."""
    beside.lpush("gateway:session:a", b"1")
    with pytest.raises(SessionsUnavailable, match="WRONGTYPE"):
        store.save("a", b"1", None)
    beside.config_set("maxmemory", 1)
    with pytest.raises(SessionsUnavailable, match="maxmemory"):
        store.save("b", b"1", None)


def test_nobody_listening_is_said_with_the_place() -> None:
    """A wrong port is found out at the first call."""
    port = free_ports(1)[0]
    store = RedisStore(f"redis://127.0.0.1:{port}/0", 60)
    assert f"127.0.0.1:{port}" in _unavailable(store).detail


def test_a_password_is_used_and_never_told(tmp_path: Path) -> None:
    """The right one opens, a wrong one is an error, and neither stands in a message or a name."""
    with RedisServer(tmp_path, password="open-sesame") as server:  # noqa: S106  # of a server that lives for one test
        store = RedisStore(server.url, 60)
        assert store.save("a", b"1", None)
        assert store.name == f"redis://***@127.0.0.1:{server.port}/0"
        store.close()
        wrong = RedisStore(server.url.replace("open-sesame", "tell-nobody"), 60)
        error = _unavailable(wrong)
        assert "tell-nobody" not in f"{error.detail} {error.hint} {error.__cause__} {wrong.name}"
        wrong.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://host", "redis://host"),
        ("redis://:secret@host/1", "redis://***@host/1"),
        ("rediss://user:secret@host:6380", "rediss://***@host:6380"),
        ("redis://user:se@cret@[::1]:6379/0", "redis://***@[::1]:6379/0"),
        ("redis://host/0?password=secret", "redis://host/0"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, shown: str) -> None:
    """User, password and options are left out."""
    assert masked(url) == shown
    assert "secret" not in shown


def test_what_is_no_url_is_refused_at_once() -> None:
    """A port that is no number."""
    with pytest.raises(ValueError, match=r"."):
        RedisStore("redis://host:port/0", 60)
