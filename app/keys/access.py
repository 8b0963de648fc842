"""API keys: how one is made, written down, recognised, and what it may do. Knows no HTTP.

A key is 32 random bytes, so its SHA-256 says nothing about it: there is no list of likely keys to try, which is what a
slow hash such as bcrypt protects passwords from. A slow hash would slow down every request, and a flood of wrong keys
would exhaust the processor.

An entry of the configuration is one line: a name, the hash, and what the key may do:

    camera-north sha256:<64 hex digits> scopes=infer rate=20 burst=40 expires=2027-01-31
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol, get_args

from app.errors import Forbidden, RateLimited, Unauthorized

_log = logging.getLogger(__name__)

Scope = Literal["infer", "operate"]
Judgement = Literal["admitted", "expired", "forbidden", "rate_limited"]
SCOPES: frozenset[Scope] = frozenset(get_args(Scope))
PREFIX = "gw_"
_LONGEST = 256  # bytes of a key that is looked at: nobody's hash is computed over megabytes
_SLOWEST = 0.000001  # requests per second, one in 12 days: the wait for the next is a number of seconds
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: it refills with `per_s` requests per second and holds `burst` of them."""

    per_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One entry; `expires` is in seconds since 1970, from when on the key is refused."""

    name: str
    digest: bytes
    scopes: frozenset[Scope]
    rate: Rate | None = None
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Owner of the sessions and jobs that a request sees: the key of this name; `sees_all` means all of them.

    `name` is None where no keys are needed. `others` are the names of all keys, for who sees all.
    """

    name: str | None = None
    sees_all: bool = True
    others: tuple[str, ...] = ()

    @property
    def owners(self) -> tuple[str | None, ...]:
        """Return the owners whose sessions the caller sees, its own first; None stands for sessions made without
        keys.
        """
        return (self.name, None, *self.others) if self.sees_all else (self.name,)

    @property
    def only(self) -> str | None:
        """The name of the key whose sessions and jobs alone exist for this caller; None: all do."""
        return None if self.sees_all else self.name


def new_key() -> str:
    """Make a new key: 256 random bits, with a prefix that scanners for secrets recognise."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: bytes) -> bytes:
    """Return the digest of a key, the only thing that is stored of it."""
    return hashlib.sha256(key).digest()


def entry(key: ApiKey) -> str:
    """The line of the configuration that `parse` reads."""
    words = [key.name, f"sha256:{key.digest.hex()}", f"scopes={','.join(sorted(key.scopes))}"]
    if key.rate is not None:
        words += [f"rate={key.rate.per_s:g}", f"burst={key.rate.burst}"]
    if key.expires is not None:
        words.append(f"expires={datetime.fromtimestamp(key.expires, UTC).isoformat().replace('+00:00', 'Z')}")
    return " ".join(words)


def parse(text: str) -> tuple[ApiKey, ...]:
    """The entries of a text: one a line, or separated by `;`; from `#` on a line is a comment.

    Raises:
        ValueError: an entry can't be read, or a name or hash stands there twice; the message repeats nothing of the
            entry but its number, for it may be the key itself.
    """
    rows = [row.strip() for line in text.splitlines() for row in line.partition("#")[0].split(";")]
    keys: list[ApiKey] = []
    for number, row in enumerate((row for row in rows if row), 1):
        try:
            keys.append(_key(row.split()))
        except ValueError as error:
            raise ValueError(f"entry {number}: {error}") from None
    return distinct(keys)


def distinct(keys: Iterable[ApiKey]) -> tuple[ApiKey, ...]:
    """The keys as they are.

    Raises:
        ValueError: two have the same name (which of them is it, then, that is to be revoked?) or the same hash.
    """
    keys = tuple(keys)
    names = [key.name for key in keys]
    if len({*names}) < len(keys):
        raise ValueError(f"two keys are called {next(name for name in names if names.count(name) > 1)}")
    if len({key.digest for key in keys}) < len(keys):
        raise ValueError("two entries have the same hash")
    return keys


def _key(words: list[str]) -> ApiKey:
    if any(word.startswith(PREFIX) for word in words):
        raise ValueError(
            "this is a key; write its entry, with the hash, which `gateway keys new` prints below the key"
        )
    if not _NAME.fullmatch(words[0]):
        raise ValueError("the first word is a name: lower-case letters, digits, and . _ - inside")
    written = _DIGEST.fullmatch(words[1]) if len(words) > 1 else None
    if written is None:
        raise ValueError(
            "the second word is sha256: and 64 hexadecimal digits (`gateway keys new` prints it)"
        )
    options = dict(word.partition("=")[::2] for word in words[2:])
    if len(options) < len(words) - 2 or not options.keys() <= {"scopes", "rate", "burst", "expires"}:
        raise ValueError("after the hash come scopes=, rate=, burst= and expires=, each at most once")
    return ApiKey(
        words[0], bytes.fromhex(written[1]), scopes_of(options.get("scopes", "infer")),
        rate_of(options.get("rate"), options.get("burst")), _expiry(options),
    )  # fmt: skip


def scopes_of(text: str) -> frozenset[Scope]:
    """The scopes of a list with commas.

    Raises:
        ValueError: there are others.
    """
    chosen = frozenset(scope for scope in SCOPES if scope in text.split(","))
    if not chosen or len(chosen) < len(text.split(",")):
        raise ValueError(f"scopes are one or more of {', '.join(sorted(SCOPES))}")
    return chosen


def rate_of(per_s: str | None, burst: str | None) -> Rate | None:
    """The bucket of two numbers; a burst that isn't given is a second's worth.

    Raises:
        ValueError: they aren't numbers, or not over 0.
    """
    if per_s is None:
        if burst is not None:
            raise ValueError("burst= goes with rate=")
        return None
    try:
        rate = float(per_s)
        size = int(burst) if burst is not None else max(1, math.ceil(rate))
    except (ValueError, OverflowError):
        raise ValueError("rate= is a number of requests per second, burst= a whole number") from None
    if not _SLOWEST <= rate < math.inf or size < 1:
        raise ValueError(f"rate= is over 0 (at least {_SLOWEST:f}) and burst= at least 1")
    return Rate(rate, size)


def expiry_of(text: str) -> float:
    """Seconds since 1970 of a date (its first moment, in UTC) or a date with time and zone.

    Raises:
        ValueError: it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("expires= is a date such as 2027-01-31, or 2027-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        if len(text) > len("2027-01-31"):
            raise ValueError("expires= with a time needs its zone: 2027-01-31T12:00:00Z")
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def _expiry(options: Mapping[str, str]) -> float | None:
    return expiry_of(options["expires"]) if "expires" in options else None


def find(keys: Iterable[ApiKey], presented: bytes) -> ApiKey | None:
    """The entry of a key; every entry is compared, each in constant time, so that the time tells nothing of them."""
    digest = digest_of(presented[: _LONGEST + 1])
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


class KeyFile:
    """The keys of a file, as it is now: looked at once a second, read when it has changed.

    A change that can't be read is logged and leaves the keys in force as they were, so that a slip in an editor
    doesn't lock everybody out; taking a key out of a readable file revokes it within the second.

    Raises:
        ValueError, OSError: at the start it must be readable.
    """

    def __init__(
        self, path: Path, more: tuple[ApiKey, ...] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._more = more
        self._clock = clock
        self._looked = clock()
        self._seen: object = self._stamp()
        self._keys = self._read()

    def __call__(self) -> tuple[ApiKey, ...]:
        now = self._clock()
        if now - self._looked >= 1:
            self._looked = now
            self._look()
        return self._keys

    def _look(self) -> None:
        try:
            stamp: object = self._stamp()
        except OSError as error:
            stamp = str(error)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._keys = self._read()
            _log.info("API keys: %d, read again", len(self._keys))
        except (OSError, ValueError) as error:
            _log.error("API keys stay as they were: %s: %s", self._path, error)

    def _read(self) -> tuple[ApiKey, ...]:
        return distinct((*self._more, *parse(self._path.read_text(encoding="utf-8"))))

    def _stamp(self) -> tuple[int, ...]:
        status = self._path.stat()  # follows links: Kubernetes swaps one under a mounted Secret
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Buckets(Protocol):
    """State of the rate limits; see `app.keys.rate_limit`."""

    async def take(self, name: str, rate: Rate) -> float:
        """Take one request from the bucket of that name: 0, or in how many seconds there will be one."""

    async def close(self) -> None:
        """Release what the limits hold."""


class Access:
    """Access rules. `observe` is called for each request with the key's name in the configuration and the decision."""

    def __init__(
        self,
        keys: Callable[[], tuple[ApiKey, ...]],
        buckets: Buckets,
        clock: Callable[[], float] = time.time,
        observe: Callable[[str, Judgement], None] = lambda _name, _judgement: None,
    ) -> None:
        self._keys = keys
        self._buckets = buckets
        self._clock = clock
        self._observe = observe

    async def close(self) -> None:
        """Release what the limits hold."""
        await self._buckets.close()

    def identify(self, presented: bytes | None) -> ApiKey:
        """The key that is presented.

        Raises:
            Unauthorized: none is, or none of ours, or one that has expired.
        """
        if presented is None:
            raise Unauthorized("this path needs an API key")
        key = find(self._keys(), presented)
        if key is None:
            raise Unauthorized("this API key is not known here")
        if key.expires is not None and self._clock() >= key.expires:
            self._observe(key.name, "expired")
            raise Unauthorized(f"the API key {key.name} has expired")
        return key

    def caller(self, key: ApiKey) -> Caller:
        """The holder of a key, known by the key's name, which a rotation keeps."""
        if "operate" not in key.scopes:
            return Caller(key.name, sees_all=False)
        return Caller(key.name, sees_all=True, others=tuple(other.name for other in self._keys()))

    async def admit(self, presented: bytes | None, scopes: frozenset[Scope]) -> ApiKey:
        """The key that is presented, if it has one of these scopes and a request left.

        Raises:
            Unauthorized, Forbidden, RateLimited.
        """
        key = self.identify(presented)
        if scopes.isdisjoint(key.scopes):
            self._observe(key.name, "forbidden")
            raise Forbidden(f"the API key {key.name} lacks the scope {' or '.join(sorted(scopes))}")
        if key.rate is not None and (wait := await self._buckets.take(key.name, key.rate)) > 0:
            self._observe(key.name, "rate_limited")
            raise RateLimited(
                f"the API key {key.name} may send {key.rate.per_s:g} requests per second "
                f"({key.rate.burst} at once)",
                retry_after=wait,
            )
        self._observe(key.name, "admitted")
        return key
