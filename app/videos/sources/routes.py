"""The way to a source: the checked address of its first request, and of each redirect."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Protocol
from urllib.parse import unquote, urljoin

from app.addresses import SourceList
from app.errors import InvalidParameter, SourceNotAllowed, SourceRefused, UrlRefused
from app.outgoing import Target, UrlGuard

SETTING = "GATEWAY_VIDEO_SOURCES"
_REDIRECTS = {301, 302, 303, 307, 308}
_OTHER_REGION = {301, 307, 400}  # S3 answers so for a bucket of another region, and names it
_REGION = "x-amz-bucket-region"
_OBJECT = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>.+)", re.DOTALL)
_LONGEST_KEY = 1024  # bytes, of S3
_LONGEST_SIGNED = 1 << 14
# The endpoint of S3 is the operator's own setting, and may be in a private network.
_ANYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))

Sign = Callable[[str, str, str | None], str]
"""Bucket, key and region (None: the configured one) to a URL that may be fetched for some minutes."""


class Route(Protocol):
    """The requests of one attempt."""

    def first(self) -> Target:
        """Raise SourceFailed, or OSError if a name can't be resolved."""

    def onward(self, status: int, headers: Message) -> Target | None:
        """Return where the next request goes after this answer; None: this answer is the last. Raises as `first`."""


@dataclass(frozen=True, slots=True)
class Places:
    """The places that the settings list. `sign` is None where no bucket is listed."""

    listed: SourceList
    guard: UrlGuard
    sign: Sign | None = None

    def check(self, url: str) -> None:
        """Check all of a URL but the addresses of its host.

        Raises:
            InvalidParameter: it is no URL that can be fetched; the message doesn't repeat it.
            SourceNotAllowed: the settings don't list its host or bucket.
        """
        if url.startswith("s3://"):
            self._check_object(*object_of(url))
            return
        if not re.match("https?://", url, re.IGNORECASE):
            raise InvalidParameter("source: begins with https://, http:// or s3://")
        try:
            self.guard.check(url)
        except UrlRefused as error:
            raise SourceNotAllowed(error.detail) from error
        except InvalidParameter as error:
            raise InvalidParameter(f"source: {error.detail}") from error

    def check_addresses(self, url: str) -> None:
        """Check the addresses of the host, too, if it has any now; those of buckets are the operator's own.

        Raises:
            InvalidParameter, SourceNotAllowed: see `check`.
        """
        self.check(url)
        if not url.startswith("s3://"):
            with contextlib.suppress(OSError):  # it may be resolved when the video is fetched
                HttpRoute(url, self.guard).first()

    def route(self, url: str) -> Route:
        """Return the way to a source; the settings may have changed since it was submitted.

        Raises:
            SourceNotAllowed: they no longer list it.
        """
        self.check(url)
        if url.startswith("s3://"):
            assert self.sign is not None  # noqa: S101  # a bucket is listed
            return S3Route(*object_of(url), self.sign)
        return HttpRoute(url, self.guard)

    def _check_object(self, bucket: str, key: str) -> None:
        for name, prefix in self.listed.buckets:
            if name in ("*", bucket) and (not prefix or key == prefix or key.startswith(f"{prefix}/")):
                return
        raise SourceNotAllowed(f"{SETTING} doesn't list this object of the bucket {bucket!r}")


class HttpRoute:
    """The URL of a caller, and the redirects of its host; each is checked as if a caller had sent it."""

    def __init__(self, url: str, guard: UrlGuard) -> None:
        self._url = url
        self._guard = guard

    def first(self) -> Target:
        with _allowed():
            return self._guard.target(self._url)

    def onward(self, status: int, headers: Message) -> Target | None:
        if status not in _REDIRECTS:
            return None
        location = headers.get("location")
        if not location:
            raise SourceRefused(f"the source answered {status} without a location")
        with _allowed():
            try:
                url = urljoin(self._url, location.partition("#")[0])
            except ValueError as error:
                raise InvalidParameter("the location of a redirect can't be read") from error
            if _is_secure(self._url) and not _is_secure(url):
                raise SourceNotAllowed("the source redirects from https:// to another scheme")
            target = self._guard.target(url)
        self._url = url
        return target


class S3Route:
    """An object of a bucket: a signed URL of the operator's endpoint, in the region that the bucket has."""

    def __init__(self, bucket: str, key: str, sign: Sign) -> None:
        self._bucket = bucket
        self._key = key
        self._sign = sign
        self._guard = UrlGuard(("*",), _ANYWHERE, setting=SETTING, longest=_LONGEST_SIGNED)

    def first(self) -> Target:
        return self._target(None)

    def onward(self, status: int, headers: Message) -> Target | None:
        region = headers.get(_REGION, "")
        if status not in _OTHER_REGION or not re.fullmatch(r"[a-z0-9-]{1,40}", region):
            return None
        return self._target(region)

    def _target(self, region: str | None) -> Target:
        with _allowed():
            return self._guard.target(self._sign(self._bucket, self._key, region))


def object_of(url: str) -> tuple[str, str]:
    """Return bucket and key of an `s3://` URL; a key is taken as it is written, without percent-encoding.

    Raises:
        InvalidParameter: it is no URL of an object, or its key could mean another one to some servers.
    """
    found = _OBJECT.fullmatch(url)
    if found is None or len(found["key"].encode("utf-8", "replace")) > _LONGEST_KEY:
        raise InvalidParameter(
            "source: an object of a bucket is written s3://bucket/key, with at most 1024 bytes of key"
        )
    key = found["key"]
    if any(ord(one) < ord(" ") or 0xD800 <= ord(one) < 0xE000 for one in key):
        raise InvalidParameter("source: the key has control characters or lone surrogates")
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidParameter("source: the key has an empty part, . or ..")
    return found["bucket"], key


def name_of(url: str) -> str:
    """Return the last part of the path, which names the video unless the caller does."""
    if url.startswith("s3://"):
        return url.rpartition("/")[2]
    path = re.split(r"[?#]", url.partition("://")[2])[0].partition("/")[2]
    return unquote(path.rpartition("/")[2], errors="replace")


def _is_secure(url: str) -> bool:
    return url[:8].lower() == "https://"


@contextlib.contextmanager
def _allowed() -> Iterator[None]:
    """Raise SourceNotAllowed for what the guard refuses inside."""
    try:
        yield
    except (UrlRefused, InvalidParameter) as error:
        raise SourceNotAllowed(error.detail) from error
