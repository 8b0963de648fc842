"""This machine and what the service talks to: ports, Triton, Redis, folders, shared memory, limits, disk."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.addresses import host_and_port, masked
from app.commands.doctor.report import Row, State
from app.commands.smoke.http import Http
from app.errors import GatewayError
from app.process.catalogue import load_catalogue
from app.process.cores import available_cores
from app.settings import Settings

_TIMEOUT_S = 3.0
_SHM = "/dev/shm"  # noqa: S108  # where regions that are shared with Triton lie
_LEAST_DESCRIPTORS = 1024
_LEAST_DISK, _TIGHT_DISK = 100 << 20, 2 << 30
_LEAST_SHM = 64 << 20  # Docker's default, in which a few leases fit


def rows(settings: Settings) -> Iterator[Row]:
    """Everything, one after another; no look takes longer than a few seconds."""
    yield _port(settings)
    if settings.operate_port is not None:
        yield _bindable("operate_port", settings.operate_host or settings.host, settings.operate_port)
    yield from _tritons(settings)
    yield _redis(settings)
    for name in ("videos_folder", "spool_folder", "text_cache_folder"):
        folder: Path | None = getattr(settings, name)
        if folder is not None:
            yield _folder(name, folder, asked=name in settings.model_fields_set)
    yield _temporary()
    yield _shared_memory(settings)
    yield _descriptors()
    yield _cores(settings)


def gateway(url: str, headers: dict[str, str], cacert: Path | None) -> Iterator[Row]:
    """A running gateway, asked from outside."""
    try:
        http = Http(url, _TIMEOUT_S, headers, cacert)
    except (ValueError, OSError) as error:
        yield Row("gateway", url, "failed", str(error), "give an address such as http://127.0.0.1:8080")
        return
    with contextlib.closing(http):
        for path, todo in (
            ("/livez", "start it: `gateway serve`, or name its address with --url"),
            ("/readyz", "`gateway smoke --url` says what fails, branch by branch"),
        ):
            try:
                reply = http.get(path)
            except GatewayError as error:
                yield Row("gateway", path, "failed", error.detail, todo)
                return
            yield Row("gateway", path, *(("ok", "200") if reply.ok else ("failed", reply.fault(), todo)))


def _port(settings: Settings) -> Row:
    row = _bindable("port", settings.host, settings.port)
    if row.state != "failed":
        return row
    with contextlib.suppress(GatewayError, ValueError):
        http = Http(f"http://{_connectable(settings.host)}:{settings.port}", _TIMEOUT_S)
        with contextlib.closing(http):
            if http.get("/livez").json() == {"status": "ok"}:
                return Row("port", str(settings.port), "ok", "a gateway serves there already")
    return row


def _connectable(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not listened on
    return f"[{host}]" if ":" in host else host


def _bindable(name: str, host: str, port: int) -> Row:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
    except OSError as error:
        todo = f"GATEWAY_{name.upper()} takes another one (0: a free one)"
        return Row("port", str(port), "failed", f"{host}:{port}: {error.strerror or error}", todo)
    return Row("port", str(port), "ok", f"{host}:{port} is free")


def _connect(host: str, port: int) -> str | None:
    """Return the reason why an address does not answer, or None if it does."""
    try:
        socket.create_connection((host, port), _TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def _tritons(settings: Settings) -> Iterator[Row]:
    from app.commands.smoke.endpoints import each  # noqa: PLC0415  # only the checks of Tritons need it

    for one in each(settings):
        yield from _triton(one)


def _triton(settings: Settings) -> Iterator[Row]:
    address = settings.triton.grpc
    host, port = host_and_port(address)
    fault = _connect(host.strip("[]"), port)
    if settings.engine != "triton":
        found = f"{fault or 'something answers there'}; not needed by GATEWAY_ENGINE=embedded"
        yield Row("triton", address, "note", found)
        return
    if fault is not None:
        todo = "start it (`make triton` in a checkout), or name it: GATEWAY_TRITON_URL"
        yield Row("triton", address, "failed", fault, todo)
        return
    from app.commands.smoke.triton import Asked, GrpcTriton  # noqa: PLC0415  # gRPC, for those who use it

    catalogue = load_catalogue(settings)
    target = GrpcTriton(settings, Asked(catalogue, settings.variant or ""), _TIMEOUT_S)
    try:
        for check in target.server():
            state: State = "ok" if check.status == "ok" else "failed"
            todo = "`gateway smoke` says how it is, branch by branch"
            yield Row(
                "triton", check.name, state, check.detail or target.title, "" if state == "ok" else todo
            )
    except GatewayError as error:
        yield Row("triton", address, "failed", error.detail, "GATEWAY_TRITON_URL names Triton's gRPC port")
    finally:
        target.close()


def _redis(settings: Settings) -> Row:
    if settings.session_store == "memory":
        several = settings.workers > 1
        found = "sessions are in memory" + (", which several workers don't share" if several else "")
        todo = (
            "GATEWAY_SESSION_STORE=redis://host:6379 lets several workers share sessions" if several else ""
        )
        return Row("redis", "sessions", "warning" if several else "note", found, todo)
    from app.main import create_session_store  # noqa: PLC0415  # the service takes a second to import
    from app.metrics import Metrics  # noqa: PLC0415  # ditto

    where = masked(settings.session_store)
    try:
        store = create_session_store(settings, Metrics())
        if store is not None:
            with contextlib.closing(store):
                store.load("gateway-doctor")
    except (GatewayError, RuntimeError) as error:
        return Row("redis", where, "failed", str(error), "start it, or correct GATEWAY_SESSION_STORE")
    return Row("redis", where, "ok", "it answers")


def _folder(name: str, folder: Path, *, asked: bool) -> Row:
    variable = f"GATEWAY_{name.upper()}"
    existing = next((parent for parent in (folder, *folder.absolute().parents) if parent.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        state: State = "failed" if asked else "warning"
        return Row(
            "folder",
            name,
            state,
            f"{existing}: {error.strerror}",
            f"let this user write there, or set {variable}",
        )
    return _room(
        "folder", name, existing, f"{folder} is writable" if existing == folder else f"{folder} can be made"
    )


def _temporary() -> Row:
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Row(
            "folder",
            "temporary",
            "failed",
            "no temporary folder can be written",
            "make /tmp writable, or set TMPDIR",
        )
    return _room("folder", "temporary", folder, f"{folder} is writable")


def _room(what: str, name: str, folder: Path, said: str) -> Row:
    free = shutil.disk_usage(folder).free
    found = f"{said}, {_size(free)} free"
    if free < _LEAST_DISK:
        return Row(what, name, "failed", found, "make room on that disk")
    return Row(what, name, *(("warning", found, "make room soon") if free < _TIGHT_DISK else ("ok", found)))


def _shared_memory(settings: Settings) -> Row:
    folder = Path(_SHM)
    if not sys.platform.startswith("linux") or not folder.is_dir():
        return Row("memory", _SHM, "note", "not here: tensors go to a Triton as bytes")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        state: State = "warning" if settings.engine == "triton" else "note"
        return Row("memory", _SHM, state, f"{error.strerror}: tensors go to a Triton as bytes")
    free = shutil.disk_usage(folder).free
    if free < _LEAST_SHM:
        todo = "more shared memory for the container: --shm-size, or --ipc=host"
        return Row("memory", _SHM, "warning", f"writable, {_size(free)} free", todo)
    return Row("memory", _SHM, "ok", f"writable, {_size(free)} free")


def _descriptors() -> Row:
    try:
        import resource  # noqa: PLC0415  # not on every system
    except ModuleNotFoundError:
        return Row("limit", "descriptors", "note", "this system doesn't say")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{'any number' if soft == resource.RLIM_INFINITY else soft}"
    if soft != resource.RLIM_INFINITY and soft < _LEAST_DESCRIPTORS:
        todo = f"ulimit -n {min(4096, hard) if hard > 0 else 4096}"
        return Row("limit", "descriptors", "warning", f"{found}: few for many callers", todo)
    return Row("limit", "descriptors", "ok", found)


def _cores(settings: Settings) -> Row:
    cores = available_cores()
    if settings.workers > cores:
        return Row(
            "limit",
            "processors",
            "warning",
            f"{cores}, and {settings.workers} workers",
            "set fewer GATEWAY_WORKERS",
        )
    return Row("limit", "processors", "ok", str(cores))


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 1 << 30 else f"{count / 2**20:.0f} MiB"
