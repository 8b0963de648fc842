"""Installed parts: Python, this program, its extras, ONNX Runtime."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator

from app import __version__, extras
from app.commands.doctor.report import Row, State
from app.installation import INSTALLED, NAME
from app.settings import Settings

_LEAST = (3, 11)
# Extra -> the distributions that may bring it, and the setting that asks for it.
_DISTRIBUTIONS = {
    "embedded": ("onnxruntime", "onnxruntime-gpu"),
    "redis": ("redis",),
    "postgres": ("procrastinate", "psycopg"),
    "tracing": ("opentelemetry-exporter-otlp-proto-http",),
    "repository": ("onnx",),
    "starter": ("platformdirs",),
    "tables": ("pyarrow",),
    "bulk": ("s3fs", "loky", "rich", "pyarrow"),
    "ray": ("ray",),
    "bench": ("matplotlib",),
}


def rows(settings: Settings) -> Iterator[Row]:
    """Python, the program and every extra."""
    version = ".".join(map(str, sys.version_info[:3]))
    there = f"{platform.python_implementation()} {version}, {platform.system()} {platform.machine()}, {sys.prefix}"
    old = sys.version_info[:2] < _LEAST
    yield Row(
        "python", "version", "failed" if old else "ok", there, "Python 3.11 or newer is needed" if old else ""
    )
    yield Row("python", NAME, "ok", f"{__version__}, {'installed' if INSTALLED else 'a checkout'}")
    for extra in extras.EXTRAS:
        yield _extra(extra, _asked(extra, settings))


def runtime(settings: Settings) -> Iterator[Row]:
    """ONNX Runtime's own word on what it can run models on."""
    if extras.missing("embedded") is not None:
        return
    from app.main import embedded_providers  # noqa: PLC0415  # the service takes a second to import

    try:
        providers = embedded_providers()
    except Exception as error:  # noqa: BLE001  # a library that doesn't load fails in many ways
        state: State = "failed" if settings.engine == "embedded" else "warning"
        yield Row("runtime", "providers", state, f"it can't be imported: {error}", "install it again")
        return
    yield Row("runtime", "providers", "ok", ", ".join(providers))
    has_gpu = any(name.startswith("CUDA") for name in providers)
    if not has_gpu and _version("onnxruntime-gpu"):
        yield Row(
            "runtime", "cuda", "warning", "onnxruntime-gpu is installed and finds no CUDA",
            "it needs the CUDA and cuDNN libraries: pip install the extra `cuda`",
        )  # fmt: skip


def _asked(extra: str, settings: Settings) -> bool:
    return {
        "embedded": settings.engine == "embedded",
        "redis": settings.session_store != "memory" or settings.rate_limit_redis is not None,
        "postgres": settings.job_store != "sqlite",
        "tracing": settings.tracing_endpoint is not None,
    }.get(extra, False)


def _extra(extra: str, asked: bool) -> Row:
    missing = extras.missing(extra)
    if missing is None:
        return Row("extra", extra, "ok", _found(extra))
    words, _, todo = missing.partition(": ")
    return Row(
        "extra", extra, "failed" if asked else "note", f"not installed ({words})", todo if asked else ""
    )


def _found(extra: str) -> str:
    found = [f"{name} {version}" for name in _DISTRIBUTIONS[extra] if (version := _version(name))]
    return ", ".join(found) or "installed"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
