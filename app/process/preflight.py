"""Preflight checks: requirements of the settings on this host, checked before anything starts."""

from __future__ import annotations

import fnmatch
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app import extras, installation
from app.hints import did_you_mean
from app.settings import Settings, variable
from routing.catalogue import Catalogue

_READ = {"repository": "a folder", "manifest": "a file", "profiles_folder": "a folder"}
_WRITTEN = ("videos_folder", "spool_folder", "text_cache_folder")
_HINT = "; `gateway up` builds the starter models and serves them"
# Settings that only one of the engines looks at.
_OF_ENGINE = {
    "embedded": ("models", "embedded_threads", "rescan_s"),
    "triton": ("triton_url", "triton_grpc_port", "triton_transport"),
}


def faults(settings: Settings, catalogue: Catalogue) -> list[str]:
    """Return the reasons not to start with these settings, one sentence each, beginning with the variable."""
    return [
        *_variant(settings, catalogue),
        *_patterns(settings, catalogue),
        *_unreadable(settings),
        *_unwritable(settings),
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
    if settings.engine == "triton" and settings.triton.grpc.endswith(":8000"):
        found.append("GATEWAY_TRITON_URL: 8000 is usually Triton's HTTP port; gRPC's is 8001")
    if settings.engine == "triton" and settings.triton.guessed:
        found.append(f"GATEWAY_TRITON_URL is an HTTP address: gRPC is expected at {settings.triton.grpc}")
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
