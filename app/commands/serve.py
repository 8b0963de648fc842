"""`gateway serve`: check the settings, take the port, then serve in this process or in several workers."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from app import installation
from app.api.server import uvicorn_options
from app.api.server.workers import Workers
from app.process import logs, malloc, preflight, shutdown
from app.process.catalogue import load_catalogue
from app.settings import Settings, environment, metrics_folder, pass_on, share_metrics, unknown_variables

if TYPE_CHECKING:
    from fastapi import FastAPI

_log = logging.getLogger("gateway")
_METRICS = "gateway-metrics-"
# Threads that may still be reading a model or running one: they can't be ended, and Python would wait for some of them.
_LEFT_BEHIND = ("embedded-loader", "first-run-", "quarantine")


def serve(settings: Settings) -> int:
    """Run the service until it is told to stop; answers the exit code."""
    settings = _with_profiles(settings)
    catalogue = load_catalogue(settings)
    wrong = [
        *unknown_variables(environment()),
        *preflight.faults(settings, catalogue),
        *uvicorn_options.faults(settings),
    ]
    if wrong:
        return _refuse(wrong)
    try:
        sockets = uvicorn_options.listen(settings)
    except OSError as error:
        return _refuse([str(error)])
    logs.configure(settings.log_level, settings.log_format)
    for warning in (*preflight.warnings(settings), *uvicorn_options.warnings(settings)):
        _log.warning("%s", warning)
    for sock in sockets:
        _log.info("listening on %s", _address(settings, sock))
    shutdown.cleanly()
    try:
        with _sharing(settings):
            code = _run(settings, sockets)
    except SystemExit as told:
        code = told.code if isinstance(told.code, int) else 1
    except RuntimeError as error:
        return _refuse([str(error)])
    _leave(code)
    return code


def _with_profiles(settings: Settings) -> Settings:
    """The settings, with the profiles of the wheel where none are named and the working folder has none."""
    default, named = (
        Settings.model_fields["profiles_folder"].default,
        "profiles_folder" in settings.model_fields_set,
    )
    if named or not installation.INSTALLED or default.is_dir():
        return settings
    return settings.model_copy(update={"profiles_folder": installation.PROFILES})


def _refuse(faults: Sequence[str]) -> int:
    for fault in faults:
        print(f"gateway: {fault}", file=sys.stderr)
    return 2


def _address(settings: Settings, sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _run(settings: Settings, sockets: list[socket.socket]) -> int:
    malloc.keep_pages()
    config = uvicorn.Config(
        _application(settings) if settings.workers == 1 else "app.main:serve_app",
        factory=settings.workers > 1,
        workers=settings.workers,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # see app.process.logs
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
        **uvicorn_options.options(settings),
    )
    if settings.workers > 1:
        Workers(config, sockets=sockets).run()
        return 0
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=sockets)
    return 0 if server.started else STARTUP_FAILURE


def _application(settings: Settings) -> FastAPI:
    from app.main import create_app  # noqa: PLC0415  # takes a second; the port is taken before

    return create_app(settings)


def _leave(code: int) -> None:
    """End the process here if threads are left that can't be ended."""
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith(_LEFT_BEHIND)]
    if left:
        _log.info("ended in the middle of: %s", ", ".join(left))
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)


@contextlib.contextmanager
def _sharing(settings: Settings) -> Iterator[None]:
    """Several workers have the same settings, and write their metrics into one folder that is this run's alone.

    Raises:
        RuntimeError: there is no folder that can be written; the message says what to do.
    """
    if settings.workers == 1:
        yield
        return
    pass_on(settings)
    parent = _writable([given] if (given := metrics_folder()) else [Path("/dev/shm"), *_temporary()])  # noqa: S108  # memory that needs no disk
    _sweep(parent)
    with (
        tempfile.TemporaryDirectory(prefix=_METRICS, dir=parent, ignore_cleanup_errors=True) as folder,
        (Path(folder) / ".lock").open("wb") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)  # until this process ends, however it does
        share_metrics(Path(folder))
        yield


def _temporary() -> list[Path]:
    try:
        return [Path(tempfile.gettempdir())]
    except FileNotFoundError:  # there is none
        return []


def _writable(folders: Sequence[Path]) -> Path:
    """The first of the folders that can be written."""
    for folder in folders:
        with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder):
            return folder
    tried = ", ".join(map(str, folders))
    raise RuntimeError(
        f"GATEWAY_WORKERS: several workers share their metrics in a folder, and {tried} can't be written; "
        "name a folder that can be written in PROMETHEUS_MULTIPROC_DIR"
    )


def _sweep(parent: Path) -> None:
    """Remove what killed gateways left in memory; a running gateway holds the lock of its folder."""
    for folder in parent.glob(f"{_METRICS}*"):
        with contextlib.suppress(OSError), (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
