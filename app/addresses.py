"""Addresses of the services that the gateway talks to, as an operator writes them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
HTTP_PORT, GRPC_PORT = 8000, 8001
_LAST_PORT = 65535
_MASK = "***"
_HOST = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[?[0-9a-f:.]*:[0-9a-f:.]+\]?")
_BUCKET = re.compile(r"s3://(?P<bucket>\*|[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/(?P<prefix>.*?)/*)?")
_WANTED = (
    "is host:port or grpc://host:port of Triton's gRPC service (grpcs:// with TLS), "
    "or http://host:port of its HTTP service"
)


@dataclass(frozen=True, slots=True)
class TritonAddress:
    """Address of Triton's gRPC service: `grpc` is `host:port`, `guessed` whether the port was derived from HTTP's."""

    grpc: str
    guessed: bool = False
    tls: bool = False

    @classmethod
    def parse(cls, text: str, grpc_port: int | None = None) -> TritonAddress:
        """Read `host[:port]`, `grpc://host[:port]`, `grpcs://host[:port]` or `http://host[:port]`.

        Triton's HTTP service doesn't report the gRPC port. By default HTTP uses 8000 and gRPC 8001, and most
        installations keep them adjacent. So an HTTP address stands for the next port, unless `grpc_port` is given.

        Raises:
            ValueError: it is none of these; the message says what is allowed.
        """
        scheme, mark, _ = text.partition("://")
        try:
            parts = urlsplit(text if mark else f"grpc://{text}")
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{_WANTED} ({error})") from None
        scheme = parts.scheme if mark else "grpc"
        if scheme == "https":
            raise ValueError(
                f"{_WANTED}; https:// is not offered: tensors go by gRPC, with TLS as grpcs://host:port"
            )
        if scheme not in ("grpc", "grpcs", "http") or not _is_host(parts) or parts.path not in ("", "/"):
            raise ValueError(_WANTED)
        if port == 0:
            raise ValueError(f"{_WANTED} (port 0 is none)")
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        if scheme != "http":
            return cls(f"{host}:{port or GRPC_PORT}", tls=scheme == "grpcs")
        if grpc_port is None and port == _LAST_PORT:
            raise ValueError(f"{_WANTED} (no port follows {port}: set GATEWAY_TRITON_GRPC_PORT)")
        return cls(f"{host}:{grpc_port or (port or HTTP_PORT) + 1}", guessed=grpc_port is None)


def host_and_port(grpc: str) -> tuple[str, int]:
    """The two parts of `TritonAddress.grpc`; an IPv6 address stays in its brackets."""
    host, _, port = grpc.rpartition(":")
    return host, int(port)


def tritons(text: str, grpc_port: int | None = None) -> tuple[TritonAddress, ...]:
    """Read one address or several with commas between them; see `TritonAddress.parse`.

    Raises:
        ValueError: one is none, one is there twice, or only some of them use TLS.
    """
    found = [TritonAddress.parse(part.strip(), grpc_port) for part in text.split(",")]
    places = [address.grpc for address in found]
    twice = [place for place in places if places.count(place) > 1]
    if twice:
        raise ValueError(f"names {twice[0]} twice")
    if len({address.tls for address in found}) > 1:
        raise ValueError("names servers with TLS and without; use grpcs:// for all or for none")
    return tuple(found)


def _is_host(parts: SplitResult) -> bool:
    """True if the URL has a host and nothing else but its port."""
    plain = parts.username is None and not parts.query and not parts.fragment
    return plain and bool(re.fullmatch(r"[A-Za-z0-9._:%-]+", parts.hostname or ""))


def session_store_url(text: str) -> str:
    """`memory`, or the URL of a Redis.

    Raises:
        ValueError: it is neither; the message holds nothing of the value, which may be a password.
    """
    if text == "memory":
        return text
    if text.partition("://")[0] not in ("redis", "rediss"):
        raise ValueError("is memory, or begins with redis:// or rediss://")
    return text


def job_store_url(text: str) -> str:
    """`sqlite`, or the URL of a database of PostgreSQL.

    Raises:
        ValueError: it is neither; the message holds nothing of the value, which may be a password.
    """
    if text != "sqlite" and text.partition("://")[0] not in ("postgresql", "postgres"):
        raise ValueError("is sqlite, or begins with postgresql://")
    return text


def rate_limit_url(text: str) -> str:
    """`auto`, `local`, or the URL of a Redis.

    Raises:
        ValueError: it is none of them; the message holds nothing of the value, which may be a password.
    """
    if text not in ("auto", "local") and text.partition("://")[0] not in ("redis", "rediss"):
        raise ValueError("is auto or local, or begins with redis:// or rediss://")
    return text


def proxies(text: str) -> str:
    """Addresses and networks with commas between them, or `*`.

    Raises:
        ValueError: one is neither.
    """
    for part in (part.strip() for part in text.split(",") if text.strip() not in ("", "*")):
        try:
            ipaddress.ip_network(part)
        except ValueError:
            raise ValueError(
                "is a list of addresses and networks such as 10.0.0.7,10.1.0.0/16, or *"
            ) from None
    return text.strip()


def origins(text: str) -> str:
    """Origins as browsers send them, with commas between them, or `*`.

    Raises:
        ValueError: one is none: it has a path, or lacks its scheme.
    """
    for part in (part.strip() for part in text.split(",") if text.strip() not in ("", "*")):
        if not re.fullmatch(r"https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?", part):
            raise ValueError("is a list of origins such as https://app.example,http://localhost:3000, or *")
    return text.strip()


def hosts(text: str) -> tuple[str, ...]:
    """Read hosts with commas between them: names, `*.` and a domain for the names below it, addresses, `*` for all.

    Raises:
        ValueError: one is none of these.
    """
    patterns = tuple(part.strip().lower().rstrip(".") for part in text.split(",") if part.strip())
    for pattern in patterns:
        if not _HOST.fullmatch(pattern):
            raise ValueError(
                "is a list of hosts such as hooks.example.com,*.example.org (no scheme, port or path)"
            )
    return tuple(plain_address(pattern.strip("[]")) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class SourceList:
    """Places of videos: hosts as `hosts` reads them, and buckets of S3 with the prefix of their keys."""

    hosts: tuple[str, ...] = ()
    buckets: tuple[tuple[str, str], ...] = ()


def sources(text: str) -> SourceList:
    """Read hosts, and `s3://bucket` or `s3://bucket/prefix` (a bucket `*` is any), with commas between them.

    Raises:
        ValueError: one is neither.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    buckets = [_BUCKET.fullmatch(part) for part in parts if part.startswith("s3://")]
    named = tuple((found["bucket"], found["prefix"] or "") for found in buckets if found is not None)
    try:
        if len(named) < len(buckets):
            raise ValueError  # noqa: TRY301  # both have the same words
        return SourceList(hosts(",".join(part for part in parts if not part.startswith("s3://"))), named)
    except ValueError:
        raise ValueError(
            "is a list of hosts and buckets such as media.example.com,*.example.org,s3://videos/2026 (a host has no "
            "scheme, port or path)"
        ) from None


def without_secrets(url: str) -> str:
    """Return a URL of http, https or s3 for people: its query may be a signature, and becomes `***`."""
    head, mark, _ = url.partition("?")
    return f"{head}?{_MASK}" if mark and not url.startswith("s3://") else url


def networks(text: str) -> tuple[Network, ...]:
    """Read addresses and networks with commas between them.

    Raises:
        ValueError: one is neither.
    """
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(
            "is a list of addresses and networks such as 10.0.0.7,10.1.0.0/16,fd00::/8"
        ) from None


def plain_address(host: str) -> str:
    """Return the usual spelling of an address; a name is returned as it is."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def masked(url: str) -> str:
    """The URL with its passwords replaced; what is no URL comes back as it is."""
    if "://" not in url:
        return url
    head, _, tail = url.partition("://")
    authority, slash, rest = tail.partition("/")
    user, at, host = authority.rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        # redis://secret@host has a user and no password; it is masked too, in case somebody forgot the colon.
        user = f"{name}:{_MASK}" if colon else _MASK
    return _without_query_secrets(f"{head}://{user}{at}{host}{slash}{rest}")


def _without_query_secrets(url: str) -> str:
    head, mark, query = url.partition("?")
    if not mark:
        return url
    pairs = parse_qsl(query, keep_blank_values=True)
    return f"{head}?" + urlencode([(k, _MASK if "pass" in k.lower() else v) for k, v in pairs], safe="*")
