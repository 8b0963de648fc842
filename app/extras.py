"""Packages that only some features need: which extra of this project brings each."""

from __future__ import annotations

import importlib.util
from types import MappingProxyType

from app.installation import package

# Extra -> what it is for, and the modules that it brings.
EXTRAS = MappingProxyType(
    {
        "embedded": ("the embedded engine needs ONNX Runtime", ("onnxruntime",)),
        "redis": ("sessions and rate limits in Redis need its client", ("redis",)),
        "postgres": ("jobs in PostgreSQL need its client", ("procrastinate", "psycopg")),
        "tables": ("tables need pyarrow", ("pyarrow",)),
        "bulk": (
            "buckets and bulk runs need s3fs, loky, rich and pyarrow",
            ("s3fs", "loky", "rich", "pyarrow"),
        ),
        "ray": ("runs on a cluster need Ray", ("ray",)),
        "tracing": ("tracing needs OpenTelemetry", ("opentelemetry.exporter.otlp.proto.http",)),
        "bench": ("plots of benchmarks and reports need matplotlib", ("matplotlib",)),
        "repository": ("building a model repository needs onnx", ("onnx",)),
        "starter": ("the user's folders are found by platformdirs", ("platformdirs",)),
    }
)


def missing(extra: str) -> str | None:
    """One line that says what to install for an extra; None where its packages are there."""
    words, modules = EXTRAS[extra]
    return None if all(map(_is_there, modules)) else f"{words}: pip install {package(extra)}"


def explained(error: ModuleNotFoundError) -> str | None:
    """Return the same line for a failed import, or None if no extra brings the module."""
    root = (error.name or "").partition(".")[0]
    bringing = (
        extra
        for extra, (_, modules) in EXTRAS.items()
        if root in {name.partition(".")[0] for name in modules}
    )
    return next(filter(None, map(missing, bringing)), None)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent of it isn't there
        return False
