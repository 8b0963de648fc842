"""TLS and proxy options for uvicorn, checked before anything starts."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from app.api.server.connections import Connection
from app.keys import access
from app.settings import Settings, variable

_BACKLOG = 2048


def options(settings: Settings) -> dict[str, Any]:
    """Return the arguments of `uvicorn.run` beside address and workers."""
    given: dict[str, Any] = {
        "server_header": False,
        "ws": "none",
        "http": Connection,
        "timeout_keep_alive": settings.idle_timeout_s,
        # A worker that starts on a busy machine can't answer for longer than uvicorn's 5 s, and would be killed for it.
        "timeout_worker_healthcheck": 60,
        "proxy_headers": bool(settings.trusted_proxies),  # uvicorn alone would believe every local process
        "forwarded_allow_ips": settings.trusted_proxies,
    }
    if settings.tls_cert is not None:
        given |= {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
    if settings.tls_client_ca is not None:
        given |= {"ssl_ca_certs": str(settings.tls_client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return given


def faults(settings: Settings) -> list[str]:
    """Return the reasons not to start with these settings, one sentence each, beginning with the variable."""
    return [*_tls_faults(settings), *_key_faults(settings), *_port_faults(settings)]


def warnings(settings: Settings) -> list[str]:
    """Return warnings about settings that admit more callers than is most likely meant."""
    if settings.host in ("localhost", "::1") or settings.host.startswith("127."):
        return []
    if not asks_for_keys(settings):
        return [
            f"GATEWAY_HOST={settings.host}: whoever reaches it may use it; see docs/access.md for API keys"
        ]
    if settings.tls_cert is None and not settings.trusted_proxies:
        return [
            f"GATEWAY_HOST={settings.host}: API keys travel unencrypted unless a proxy ends TLS before it"
        ]
    return []


def asks_for_keys(settings: Settings) -> bool:
    return settings.api_keys is not None or settings.api_keys_file is not None


def _tls_faults(settings: Settings) -> Iterator[str]:
    for prefix in ("tls", "triton_tls"):
        cert: Path | None = getattr(settings, f"{prefix}_cert")
        if cert is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                    cert, getattr(settings, f"{prefix}_key"), password=""
                )
            except (OSError, ssl.SSLError) as error:
                names = f"{variable(f'{prefix}_cert')}: with {variable(f'{prefix}_key')}"
                yield f"{names}: no certificate with its key: {_words(error)}"
    for name in ("tls_client_ca", "triton_tls_ca"):
        path: Path | None = getattr(settings, name)
        if path is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
            except (OSError, ssl.SSLError) as error:
                yield f"{variable(name)}: no certificates of authorities: {_words(error)}"


def _words(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _key_faults(settings: Settings) -> Iterator[str]:
    if settings.api_keys_file is not None:
        try:
            keys(settings)
        except OSError as error:
            yield f"GATEWAY_API_KEYS_FILE: {settings.api_keys_file}: {_words(error)}"
        except ValueError as error:
            yield f"GATEWAY_API_KEYS_FILE: {settings.api_keys_file}: {error}"


def _port_faults(settings: Settings) -> Iterator[str]:
    if settings.operate_port is not None:
        try:
            operate_socket(settings, shared=False).close()
        except OSError as error:
            yield f"GATEWAY_OPERATE_PORT: {settings.operate_port}: {_words(error)}"


def keys(settings: Settings) -> Callable[[], tuple[access.ApiKey, ...]] | None:
    """Return the source of the current keys, or None if no keys are required.

    Raises:
        ValueError, OSError: the file can't be read.
    """
    text = settings.api_keys.get_secret_value() if settings.api_keys is not None else ""
    fixed = access.parse(text)
    if settings.api_keys_file is not None:
        return access.KeyFile(settings.api_keys_file, fixed)
    return (lambda: fixed) if settings.api_keys is not None else None


def operate_socket(settings: Settings, *, shared: bool) -> socket.socket:
    """A socket at the port for operation; `shared`: one of several workers', between which the kernel chooses.

    Raises:
        OSError: somebody else has the port.
    """
    address = _addresses(settings.operate_host or settings.host, settings.operate_port)[0]
    return _bound(*address, shared=shared)


def listen(settings: Settings) -> list[socket.socket]:
    """Take the service's port on every address of its host; connections wait until somebody accepts them.

    Raises:
        OSError: it can't be had; the message is a sentence that begins with the variable.
    """
    sockets: list[socket.socket] = []
    port = settings.port
    try:
        for family, address in _addresses(settings.host, port):
            sockets.append(_bound(family, (address[0], port, *address[2:]), shared=False))
            port = sockets[-1].getsockname()[1]  # of port 0: the same on every address
            sockets[-1].listen(_BACKLOG)
    except socket.gaierror as error:
        raise OSError(f"GATEWAY_HOST: {settings.host}: {_words(error)}") from error
    except OSError as error:
        for sock in sockets:
            sock.close()
        where = "GATEWAY_HOST" if error.errno == errno.EADDRNOTAVAIL else "GATEWAY_PORT"
        raise OSError(f"{where}: {settings.host}:{port}: {_words(error)}") from error
    return sockets


Address = tuple[Any, ...]


def _addresses(host: str, port: int | None) -> list[tuple[int, Address]]:
    """Family and address, each once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(family: int, address: Address, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
