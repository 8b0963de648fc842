"""Preflight checks: requirements of the settings on this host, checked before anything starts."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app import extras, installation
from app.hints import did_you_mean
from app.settings import Settings, variable
from app.state import job_schema, mounts
from app.state.host_mark import HostMark
from routing.catalogue import Catalogue

_READ = {"repository": "a folder", "manifest": "a file", "profiles_folder": "a folder"}
_WRITTEN = ("videos_folder", "spool_folder", "text_cache_folder")
_SHARED_HINT = (
    "name a local folder, or keep jobs in GATEWAY_JOB_STORE=postgresql://…; where this host alone writes to it and its "
    "locks work, set GATEWAY_VIDEOS_FOLDER_ON_NETWORK=true (docs/replicas.md)"
)
_HINT = "; `gateway up` builds the starter models and serves them"
# Settings that only one of the engines looks at.
_OF_ENGINE = {
    "embedded": ("models", "embedded_threads", "rescan_s"),
    "triton": ("triton_url", "triton_grpc_port", "triton_repositories", "triton_transport"),
}


def faults(settings: Settings, catalogue: Catalogue) -> list[str]:
    """Return the reasons not to start with these settings, one sentence each, beginning with the variable."""
    return [
        *_variant(settings, catalogue),
        *_patterns(settings, catalogue),
        *_unreadable(settings),
        *_unwritable(settings),
        *_shared(settings),
        *_not_installed(settings),
    ]


def warnings(settings: Settings) -> list[str]:
    """Return warnings about settings that are possible but most likely not meant."""
    found = [
        f"{variable(name)} does nothing with GATEWAY_ENGINE={settings.engine}"
        for engine, names in _OF_ENGINE.items()
        for name in names
        if engine != settings.engine and name in settings.model_fields_set
    ]
    if settings.engine == "triton" and any(one.grpc.endswith(":8000") for one in settings.tritons):
        found.append("GATEWAY_TRITON_URL: 8000 is usually Triton's HTTP port; gRPC's is 8001")
    guessed = [one.grpc for one in settings.tritons if one.guessed]
    if settings.engine == "triton" and guessed:
        found.append(f"GATEWAY_TRITON_URL is an HTTP address: gRPC is expected at {', '.join(guessed)}")
    return found


def _variant(settings: Settings, catalogue: Catalogue) -> Iterator[str]:
    fault = catalogue.variant_fault(settings.variant)
    if fault is not None:
        yield f"GATEWAY_VARIANT: {fault}{did_you_mean(settings.variant or '', catalogue.variants)}"


def _patterns(settings: Settings, catalogue: Catalogue) -> Iterator[str]:
    asked = {"require_ready": (settings.require_ready, {"", "checklist"})}
    if settings.engine == "embedded":
        asked["models"] = settings.models, {"", "auto"}
    for name, (text, known) in asked.items():
        for pattern in (word.strip() for word in text.split(",")):
            if pattern not in known and not fnmatch.filter(catalogue.branches, pattern):
                hint = did_you_mean(pattern, catalogue.branches) or " (`gateway routes` prints their names)"
                yield f"{variable(name)}: no branch is called {pattern}{hint}"


def _not_installed(settings: Settings) -> Iterator[str]:
    needed = {
        "engine": ("embedded", settings.engine == "embedded"),
        "session_store": ("redis", settings.session_store != "memory"),
        "job_store": ("postgres", settings.job_store != "sqlite"),
        "job_artifacts": ("bulk", "://" in (settings.job_artifacts or "")),
        "rate_limit_store": ("redis", "://" in settings.rate_limit_store),
        "tracing_endpoint": ("tracing", settings.tracing_endpoint is not None),
        "video_sources": ("bulk", "s3://" in settings.video_sources),
    }
    for name, (extra, wanted) in needed.items():
        said = extras.missing(extra) if wanted else None
        if said is not None:
            yield f"{variable(name)}: {said}"


def _unreadable(settings: Settings) -> Iterator[str]:
    for name, kind in _READ.items():
        path: Path | None = getattr(settings, name)
        needed = name in settings.model_fields_set or (name == "repository" and settings.engine == "embedded")
        if path is None or not needed:
            continue
        mode = os.R_OK if kind == "a file" else os.R_OK | os.X_OK
        if not (path.is_file() if kind == "a file" else path.is_dir()):
            hint = _HINT if name == "repository" and installation.INSTALLED else ""
            yield f"{variable(name)}: {path} is not {kind} that is there (working folder: {Path.cwd()}){hint}"
        elif not os.access(path, mode):
            yield f"{variable(name)}: {path} can't be read by user {os.getuid()}"


def _unwritable(settings: Settings) -> Iterator[str]:
    for name in _WRITTEN:
        path: Path | None = getattr(settings, name)
        if path is None or name not in settings.model_fields_set:
            continue
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            yield f"{variable(name)}: {path} can't be written by user {os.getuid()}: {error.strerror}"


def _shared(settings: Settings) -> Iterator[str]:
    """SQLite and the locks of workers need a folder of this host alone."""
    folder = settings.videos_folder
    if folder is None or settings.job_store != "sqlite":
        return
    with contextlib.suppress(OSError):  # `_unwritable` says so, where the folder is named
        fault = _fault_of(folder, network_is_fine=settings.videos_folder_on_network)
        if fault is not None:
            yield f"GATEWAY_VIDEOS_FOLDER: {fault}"


def _fault_of(folder: Path, *, network_is_fine: bool) -> str | None:
    """Return why a folder of jobs can't be used on this host; it may raise OSError."""
    kind = mounts.file_system_of(folder)
    if kind is not None and mounts.is_network(kind) and not network_is_fine:
        return f"{folder} is on a network file system ({kind}): {_SHARED_HINT}"
    if not folder.is_dir():
        return None
    fault = job_schema.fault_of(folder / job_schema.INDEX)
    if fault is not None:
        return f"the index of the video jobs in {folder} can't be used: {fault}"
    mark = HostMark(folder)
    return None if mark.take() else mark.in_use
