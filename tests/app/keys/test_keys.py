"""API keys without HTTP: how they are written, recognised, limited, and exchanged while the service runs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import ROOT
from support.waiting import PATIENCE_S

from app.errors import Forbidden, RateLimited, Unauthorized
from app.keys import access
from app.keys.access import Access, ApiKey, KeyFile, Rate, digest_of, entry, find, new_key, parse
from app.keys.rate_limit import OwnBuckets, after

DIGEST = digest_of(b"gw_one")
INFER = frozenset[access.Scope]({"infer"})


def _line(name: str, key: str, more: str = "") -> str:
    return f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()} {more}"


def test_an_entry_says_all_that_a_key_may_do() -> None:
    """Name, hash, scopes, rate with burst, and expiry are read; what isn't said is the least: infer, no limit."""
    text = f"""
    # who calls
    {_line("north", "gw_one", "scopes=infer,operate rate=0.5 burst=3 expires=2027-01-31T12:00:00+02:00")}  # until then
    {_line("south.2", "gw_two")} ; {_line("west", "gw_three", "rate=2.5 expires=1970-01-02")}
    """
    north, south, west = parse(text)
    assert north == ApiKey("north", DIGEST, access.SCOPES, Rate(0.5, 3), 1801389600.0)
    assert (south.scopes, south.rate, south.expires) == (INFER, None, None)
    assert (west.rate, west.expires) == (Rate(2.5, 3), 86400.0)
    assert parse("") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("north", "entry 1: the second word is sha256:"),
        (f"north sha256:{'0' * 63}", "64 hexadecimal digits"),
        (f"North sha256:{'0' * 64}", "a name: lower-case"),
        (f"-x sha256:{'0' * 64}", "a name: lower-case"),
        (f"../x sha256:{'0' * 64}", "a name: lower-case"),
        (_line("a", "b", "scopes=all"), "one or more of infer, operate"),
        (_line("a", "b", "scopes="), "one or more of infer, operate"),
        (_line("a", "b", "scopes=infer,infer"), "one or more of infer, operate"),
        (_line("a", "b", "rate=0"), "over 0"),
        (_line("a", "b", "rate=5e-324"), "at least 0.000001"),
        (_line("a", "b", "rate=inf"), "a number of requests per second"),
        (_line("a", "b", "rate=nan"), "rate="),
        (_line("a", "b", "rate=1 burst=0"), "at least 1"),
        (_line("a", "b", "burst=5"), "goes with rate="),
        (_line("a", "b", "expires=soon"), "a date such as"),
        (_line("a", "b", "expires=2027-01-31T12:00"), "needs its zone"),
        (_line("a", "b", "scope=infer"), "each at most once"),
        (_line("a", "b", "rate=1 rate=2"), "each at most once"),
        (f"{_line('a', 'b')};{_line('a', 'c')}", "two keys are called a"),
        (f"{_line('a', 'b')}\n{_line('c', 'b')}", "the same hash"),
        (f"{_line('a', 'b')}\nb", "entry 2: "),
    ],
)
def test_an_entry_that_cannot_be_read_is_refused(text: str, said: str) -> None:
    """A slip doesn't pass for a key that may more, or for longer, than was meant."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["north {key}", "{key}", "{key} sha256:00", "north sha256:{key}"])
def test_a_key_in_place_of_its_hash_is_refused_and_not_repeated(text: str) -> None:
    """The mistake that is made first doesn't put the key into the log of the start."""
    key = new_key()
    with pytest.raises(ValueError, match="entry 1") as caught:
        parse(text.format(key=key))
    assert key not in str(caught.value)


@given(
    st.builds(
        ApiKey,
        st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True),
        st.binary(min_size=32, max_size=32),
        st.sets(st.sampled_from(sorted(access.SCOPES)), min_size=1).map(frozenset),
        st.none() | st.builds(Rate, st.integers(1, 10000).map(lambda n: n / 4), st.integers(1, 100000)),
        st.none() | st.integers(0, 4102444800).map(float),
    )
)
def test_what_is_printed_is_what_is_read(key: ApiKey) -> None:
    """The line of any key, read again, is that key."""
    assert parse(entry(key)) == (key,)


def test_every_key_is_found_and_no_other() -> None:
    """Each of fifty keys is found by itself alone: the last byte counts, and so does the length."""
    secrets = [new_key() for _ in range(50)]
    keys = parse("\n".join(_line(f"k{n}", secret) for n, secret in enumerate(secrets)))
    assert len({*secrets}) == 50
    for number, secret in enumerate(secrets):
        found = find(keys, secret.encode())
        assert found is not None
        assert found.name == f"k{number}"
    for wrong in ("", secrets[0][:-1], secrets[0] + "A", secrets[0].upper(), "gw_" * 100_000):
        assert find(keys, wrong.encode()) is None


def test_all_hashes_are_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    """First, last or none: the work is the same, by the standard library's constant-time comparison."""
    keys = parse("\n".join(_line(f"k{n}", f"key{n}") for n in range(20)))
    compared: list[bytes] = []
    real = access.hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return real(one, other)

    monkeypatch.setattr(access.hmac, "compare_digest", counted)
    for presented in (b"key0", b"key19", b"none"):
        compared.clear()
        find(keys, presented)
        assert compared == [key.digest for key in keys]


def _admitted(allowed: Access, presented: bytes | None, scopes: frozenset[access.Scope] = INFER) -> str:
    """Return the name of the key that is admitted."""
    return asyncio.run(allowed.admit(presented, scopes)).name


def _access(*lines: str, now: float = 0.0) -> Access:
    keys = parse("\n".join(lines))
    return Access(lambda: keys, OwnBuckets(lambda: now), clock=lambda: now)


def test_a_key_must_be_there_be_known_and_not_have_expired() -> None:
    """From its moment on an expired key is refused; its name is told to who holds it, and to nobody else."""
    line = _line("north", "gw_one", "expires=1970-01-02")
    assert _admitted(_access(line, now=86399.9), b"gw_one") == "north"
    with pytest.raises(Unauthorized, match="north has expired"):
        _admitted(_access(line, now=86400.0), b"gw_one")
    for presented in (None, b"", b"gw_two"):
        with pytest.raises(Unauthorized) as caught:
            _admitted(_access(line), presented)
        assert "north" not in str(caught.value)


def test_a_scope_is_needed_and_costs_nothing_where_it_lacks() -> None:
    """A refused request takes nothing from the key's bucket."""
    allowed = _access(_line("north", "gw_one", "rate=1 burst=1"))
    for _ in range(5):
        with pytest.raises(Forbidden, match="lacks the scope operate"):
            _admitted(allowed, b"gw_one", frozenset({"operate"}))
    assert _admitted(allowed, b"gw_one") == "north"
    with pytest.raises(RateLimited, match="1 requests per second") as caught:
        _admitted(allowed, b"gw_one")
    assert caught.value.retry_after == pytest.approx(1)


def _taken(buckets: OwnBuckets, rate: Rate) -> float:
    """Take one request, without a loop: nothing is waited for."""
    try:
        buckets.take("k", rate).send(None)
    except StopIteration as end:
        return float(end.value)
    raise AssertionError("it waits")


@given(
    st.integers(1, 50),
    st.floats(0.1, 200),
    st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=60),
)
def test_a_bucket_is_a_token_bucket(burst: int, per_s: float, gaps: list[float]) -> None:
    """Whatever the gaps between requests, exactly those pass for which a bucket that refills evenly has a token."""
    rate, buckets_clock = Rate(per_s, burst), [1000.0]
    buckets = OwnBuckets(lambda: buckets_clock[0])
    tokens = float(burst)
    for gap in gaps:
        buckets_clock[0] += gap
        tokens = min(burst, tokens + gap * per_s)
        wait = _taken(buckets, rate)
        if abs(tokens - 1) < 1e-4:  # a tie of rounding: follow it
            tokens -= wait == 0
            continue
        assert (wait == 0) == (tokens >= 1)
        if wait == 0:
            tokens -= 1
        else:
            assert wait == pytest.approx((1 - tokens) / per_s, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("now", [0.0, 1000.0, 54_321.987, 3e7])
@pytest.mark.parametrize("per_s", [0.1, 0.3, 3.0, 7.0, 1 / 3, 60 / 7])
def test_a_full_bucket_holds_its_burst(per_s: float, now: float) -> None:
    """Rounding neither fills it again, as if its moment were from another boot, nor takes a request away."""
    for burst in range(1, 30):
        buckets = OwnBuckets(lambda: now)
        waits = [_taken(buckets, Rate(per_s, burst)) for _ in range(burst + 5)]
        assert waits == [0.0] * burst + [pytest.approx(1 / per_s, abs=1e-6)] * 5


def test_a_bucket_of_another_boot_is_full() -> None:
    """A file that says that the bucket is full in a year is no reason to refuse for a year."""
    assert after(1e9, Rate(1, 2), 100.0) == (101.0, 0.0)
    assert after(float("nan"), Rate(1, 2), 100.0) == (101.0, 0.0)


_TAKING = """
import asyncio, pathlib, sys
from app.keys.access import Rate
from app.keys.rate_limit import SharedBuckets
buckets = SharedBuckets(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
async def taken():
    return [await buckets.take("north", Rate(0.001, 100)) for _ in range(100)]
print(sum(wait == 0 for wait in asyncio.run(taken())))
"""


def test_several_processes_share_one_limit(tmp_path: Path) -> None:
    """Four processes that take at once get the burst together, not each; not one more, not one less."""
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _TAKING, str(tmp_path)], cwd=ROOT, text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                )
            )
            for _ in range(4)
        ]  # fmt: skip
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
        taken = [int(worker.stdout.read()) for worker in workers if worker.stdout is not None]
    assert sum(taken) == 100


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _names(keys: KeyFile, clock: _Clock) -> list[str]:
    clock.now += 1
    return [key.name for key in keys()]


def test_a_file_of_keys_is_exchanged_while_it_is_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that is added holds, and one that is taken out doesn't, as soon as the file is looked at again."""
    path, clock = tmp_path / "keys", _Clock()
    path.write_text(_line("old", "gw_one"))
    keys = KeyFile(path, parse(_line("fixed", "gw_fixed")), clock)
    path.write_text(_line("old", "gw_one") + "\n" + _line("new", "gw_two"))
    assert [key.name for key in keys()] == ["fixed", "old"]  # not looked at twice within a second
    assert _names(keys, clock) == ["fixed", "old", "new"]
    replacement = tmp_path / "keys.new"
    replacement.write_text(_line("new", "gw_two"))
    replacement.replace(path)
    assert _names(keys, clock) == ["fixed", "new"]
    path.write_text("")
    assert _names(keys, clock) == ["fixed"]


def test_a_file_that_cannot_be_read_any_more_leaves_the_keys_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once a change in the log, without the line; corrected, it is read again."""
    path, clock = tmp_path / "keys", _Clock()
    path.write_text(_line("old", "gw_one"))
    keys = KeyFile(path, (), clock)
    path.write_text("gw_a_key_by_mistake")
    for _ in range(3):
        assert _names(keys, clock) == ["old"]
    assert len(caplog.records) == 1
    assert "by_mistake" not in caplog.text
    path.unlink()
    assert _names(keys, clock) == ["old"]
    path.write_text(_line("new", "gw_two"))
    assert _names(keys, clock) == ["new"]


def test_a_link_that_is_swapped_is_a_change(tmp_path: Path) -> None:
    """Exchange the file as Kubernetes does with a mounted Secret: the path stays, its target changes."""
    clock = _Clock()
    for number in (1, 2):
        folder = tmp_path / f"data{number}"
        folder.mkdir()
        (folder / "keys").write_text(_line(f"k{number}", f"gw_{number}"))
    (tmp_path / "now").symlink_to("data1")
    (tmp_path / "keys").symlink_to("now/keys")
    keys = KeyFile(tmp_path / "keys", (), clock)
    (tmp_path / "then").symlink_to("data2")
    (tmp_path / "then").replace(tmp_path / "now")
    assert _names(keys, clock) == ["k2"]


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "keys", "new", *arguments],
        cwd=ROOT, env=kept, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


def test_the_command_makes_a_key_that_its_line_recognises() -> None:
    """Every run another key of 256 bits; the line holds its hash, not the key."""
    made = [
        json.loads(
            _command("north", "--scopes", "infer,operate", "--rate", "20", "--expires", "2d", "--json").stdout
        )
        for _ in range(2)
    ]
    for one, other in itertools.permutations(made):
        keys = parse(one["entry"])
        found = find(keys, one["key"].encode())
        assert found is not None
        assert (found.name, found.scopes, found.rate) == ("north", access.SCOPES, Rate(20, 20))
        assert find(keys, other["key"].encode()) is None
        assert one["key"] not in one["entry"]
        assert len(one["key"]) == len("gw_") + 43


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["No Name"], "a name"),
        (["a", "--scopes", "root"], "infer, operate"),
        (["a", "--burst", "3"], "goes with rate="),
        (["a", "--expires", "soon"], "a date"),
        (["a", "--expires", f"{10**21}d"], "a number of days"),
    ],
)
def test_the_command_refuses_what_the_service_would_refuse(arguments: list[str], said: str) -> None:
    """Exit code 2, a sentence, and no key."""
    done = _command(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_configuration_with_keys_shows_none_of_them() -> None:
    """`gateway config` masks the hashes, shows where the file is, and goes on to workers unmasked."""
    variables = {"GATEWAY_API_KEYS": _line("north", "gw_one"), "GATEWAY_API_KEYS_FILE": "/run/keys"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    for form in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "config", *form], cwd=ROOT, env={**kept, **variables},
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0
        assert DIGEST.hex() not in done.stdout + done.stderr
        assert "***" in done.stdout
        assert "/run/keys" in done.stdout
