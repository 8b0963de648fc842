"""Import rules of the architecture, and other rules of the rooms."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT

ROOMS = ("app", "routing", "export", "triton_vision_gateway")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
STDLIB = set(sys.stdlib_module_names)
CODECS = {"cv2", "simplejpeg", "PIL", "av", "cykooz_resizer"}
WEB = {
    "fastapi",
    "starlette",
    "sse_starlette",
    "anyio",
    "pydantic",
    "pydantic_settings",
    "uvicorn",
    "httptools",
}
# The families whose export needs PyTorch; YOLO11 must do without it.
PYTORCH = (
    "export.families.clip",
    "export.families.midas",
    "export.families.places",
    "export.families.raft",
    "export.families.tracing",
)
# Package -> the only modules that may import it (prefixes).
ONLY_IN = {
    **dict.fromkeys(WEB, ("app.api", "app.main", "app.settings", "app.cli", "app.commands.serve")),
    "pydantic": ("app.api", "app.main", "app.settings", "app.cli", "app.videos.profile_documents"),
    "grpc": ("app.engine.triton.client",),
    "tritonclient": ("app.engine.triton.client", "app.engine.triton.messages"),
    "google.protobuf": ("app.engine.triton.messages",),
    "onnxruntime": ("app.engine.embedded", "export"),
    **dict.fromkeys(("torch", "torchvision", "transformers"), PYTORCH),
    "ultralytics": (),
    "export": ("export", "app.commands.up", "app.commands.models", "app.commands.plan"),
    "app.main": ("app.cli", "app.commands"),
    "app.families": ("app.main", "app.commands"),
    "app.cli": ("app.start",),
    "benchmarks": ("app.commands.bench",),
    "deploy": (),
    "app.engine.triton": ("app.engine.triton", "app.main", "app.commands.smoke.triton"),
    "app.engine.embedded": ("app.engine.embedded", "app.main"),
    "app.engine.endpoints": ("app.engine.endpoints", "app.main", "app.commands.smoke.endpoints"),
    "app.engine.fake": (),
    "av": ("app.media",),
    "cykooz_resizer": ("app.media.resizers.fast",),
    "redis": ("app.state.redis",),
    "opentelemetry": ("app.process.tracing",),
    "app.process.tracing": ("app.main",),
    "app.state.redis": ("app.main", "app.state.redis"),
    "psycopg": ("app.state.postgres",),
    "psycopg_pool": ("app.state.postgres",),
    "procrastinate": ("app.state.postgres",),
    "app.state.postgres": ("app.state.postgres", "app.main"),
    "botocore": ("app.videos.sources.s3",),
    "app.videos.sources.s3": ("app.main", "app.commands.model_fetch"),
    "app.state.memory": ("app.main",),
    "yaml": ("app.documents",),
    "pyarrow": ("app.videos.formats.parquet", "app.bulk"),
    "matplotlib": ("app.bulk.report.plots", "app.commands.gpu_check.picture"),
    "fsspec": ("app.videos.stores.remote",),
    "loky": ("app.bulk.executors.local",),
    "ray": ("app.bulk.executors.ray",),
    "rich": ("app.commands.bulk",),
}
# Below everything that serves: whoever is in a room above may use them.
_BASE = {
    "numpy",
    "routing",
    "app.vision",
    "app.media",
    "app.engine.base",
    "app.errors",
    "app.hints",
    "app.metrics",
    "app.context",
    "app.deadline",
}
# Room or module -> what it may import beyond itself (prefixes); the longest name that fits a module is its row.
ALLOWED: dict[str, set[str]] = {
    "routing": set(),
    "app": set(),
    "app.addresses": set(),
    "app.errors": set(),
    "app.hints": set(),
    "app.extras": {"app.installation"},
    "app.installation": {"platformdirs"},
    "app.context": set(),
    "app.deadline": {"app.errors"},
    "app.outgoing": {"app.addresses", "app.errors"},
    "app.settings": {"app.addresses", "app.keys", "pydantic", "pydantic_settings"},
    "app.documents": {"app.errors", "yaml"},
    "app.metrics": {"prometheus_client"},
    "app.keys": {"app.errors"},
    "app.state": {"app.errors"},
    "app.state.redis": {"app.deadline", "app.errors", "app.keys.access", "app.state.base", "redis"},
    "app.state.postgres": {"app.errors", "app.state", "psycopg", "psycopg_pool", "procrastinate"},
    "app.process": set(),
    "app.process.catalogue": {"app.settings", "routing"},
    "app.process.cores": set(),
    "app.process.drain": set(),
    "app.process.health": {"app.settings"},
    "app.process.logs": {"app.context"},
    "app.process.malloc": set(),
    "app.process.preflight": {
        "app.extras", "app.hints", "app.installation", "app.settings", "app.state.host_mark", "app.state.job_schema",
        "app.state.mounts",
        "routing.catalogue",
    },
    "app.process.shutdown": {"app.process.drain"},
    "app.process.tracing": {"app.__version__", "app.context", "app.errors", "opentelemetry"},
    "app.vision": {"numpy", "scipy", "ftfy", "regex"},
    "app.media": {"numpy", "app.errors", "app.vision", *CODECS},
    "app.engine": {"numpy", "routing", "app.context", "app.deadline", "app.errors"},
    "app.engine.embedded": {"numpy", "routing", "app.deadline", "app.engine", "app.errors", "onnxruntime"},
    "app.engine.endpoints": {"routing", "app.context", "app.deadline", "app.engine.base", "app.errors", "numpy"},
    "app.engine.triton": {
        "numpy", "routing", "app.context", "app.deadline", "app.engine", "app.errors", "grpc", "tritonclient",
        "google.protobuf",
    },
    "app.pipelines": _BASE,
    "app.sessions": {
        "app.context", "app.deadline", "app.errors", "app.metrics", "app.pipelines", "app.state.base",
        "app.state.moments", "app.vision", "routing.rollout",
    },
    "app.videos": {*_BASE, "app.__version__", "app.pipelines", "app.state.jobs"},
    "app.videos.job_files": {
        "app.state.jobs", "app.state.sources", "app.videos.profile", "app.videos.stores",
    },
    "app.videos.job_runner": {*_BASE, "app.pipelines", "app.state.jobs", "app.state.sources", "app.videos"},
    "app.videos.stored_jobs": {
        "app.state.jobs", "app.state.sources", "app.videos.checkpoint", "app.videos.job_files",
        "app.videos.profile", "app.videos.stores",
    },
    "app.videos.names": set(),
    "app.videos.stores": {"app.extras", "app.media.abandoned", "app.media.npz"},
    "app.videos.stores.remote": {"app.videos.stores", "fsspec"},
    "app.videos.formats": {*_BASE, "app.extras", "app.pipelines", "app.videos", "orjson", "pyarrow"},
    "app.videos.jobs": {
        *_BASE, "app.pipelines", "app.state.callbacks", "app.state.idempotency", "app.state.jobs", "app.videos",
    },
    "app.videos.sources": {
        "app.__version__", "app.addresses", "app.errors", "app.outgoing", "app.state.jobs", "app.state.sources",
        "app.videos.job_files", "app.videos.job_threads",
    },
    "app.videos.sources.s3": {"app.errors", "botocore"},
    "app.videos.webhooks": {
        "app.__version__", "app.errors", "app.keys.signing", "app.outgoing", "app.state.callbacks", "app.state.jobs",
        "app.state.moments",
    },
    "app.videos.profile_documents": {"app.documents", "app.errors", "app.videos.profile", "pydantic"},
    "app.bulk": {"app.hints", "app.videos"},
    "app.bulk.report": {"app.bulk", "app.videos", "numpy", "matplotlib"},
    "app.bulk.tables": {"app.bulk", "app.media.npz", "app.videos", "pyarrow"},
    "app.bulk.corpus": {"app.bulk.entries", "app.hints", "app.videos.names", "app.videos.stores", "pyarrow"},
    "app.bulk.executors": {"app.bulk.attempts", "app.bulk.entries", "app.bulk.outcomes", "loky"},
    "app.bulk.executors.ray": {
        "app.__version__", "app.bulk.attempts", "app.bulk.entries", "app.bulk.executors.base", "app.bulk.outcomes",
        "ray", "triton_vision_gateway.add_to_path",
    },
    "app.api": {
        "app.context", "app.deadline", "app.documents", "app.errors", "app.hints", "app.keys", "app.media",
        "app.metrics", "app.outgoing.LONGEST_URL", "app.pipelines", "app.process.drain", "app.sessions",
        "app.settings", "app.state.idempotency.Held", "app.state.jobs.Position", "app.state.moments", "app.videos",
        "app.vision.coco", "app.vision.prompts", "app.vision.tracks",
        "routing.policy", "orjson", *WEB,
    },
    "app.families": {"app.api.routes", "app.pipelines", "app.probes", "app.videos"},
    "app.probes": {"numpy", "routing.catalogue"},
    "app.main": {"app", "routing", *WEB},
    "app.commands": {"app", "routing", "numpy", "uvicorn", "fastapi", "orjson", "rich", "tqdm", *CODECS},
    "app.commands.bench": {"app", "routing", "numpy", "benchmarks"},
    "app.commands.gpu_check": {"app", "routing", "numpy", "matplotlib"},
    "app.commands.plan": {"app", "routing", "export"},
    "app.commands.up": {"app", "routing", "export"},
    "app.commands.models": {"app", "routing", "export"},
    "app.cli": {"app", "routing", "pydantic"},
    "app.start": {"app.cli"},
    "triton_vision_gateway": {"app.start", "app.process.health"},
    "export": {
        "routing", "numpy", "onnx", "onnxruntime", "torch", "torchvision", "transformers", "tqdm",
    },
    "export.yolo11": {"export", "routing", "numpy", "onnx", "onnxruntime"},
}  # fmt: skip


def row_of(module: str) -> str | None:
    """The name of the row that fits a module best; a row of a package is not one of the modules beside it."""
    fitting = [room for room in ALLOWED if within(module, room) and (room != "app" or module == "app")]
    return max(fitting, key=len, default=None)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str) -> Iterator[str]:
    """Every imported module, with the names taken from it (`from a import b` gives `a.b`)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def breaches(module: str, source: str) -> list[str]:
    """Return the imports of `module` that the rules forbid."""
    room = row_of(module)
    found = [] if room is not None else [f"{module} has no row in ALLOWED"]
    for name in imports(source):
        if name.partition(".")[0] in STDLIB:
            continue
        for package, users in ONLY_IN.items():
            if within(name, package) and not any(within(module, user) for user in users):
                found.append(f"{module} imports {name}")
        if room is not None and not any(within(name, prefix) for prefix in {room, *ALLOWED[room]}):
            found.append(f"{module} imports {name}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_rooms_import_only_what_they_may(path: Path) -> None:
    """The architecture's rules hold in every file."""
    assert breaches(module_of(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("routing.policy", "import numpy"),
        ("app.vision.yolo", "import cv2"),
        ("app.media.image", "from app.pipelines import base"),
        ("app.pipelines.detect", "from app.engine.triton.engine import TritonEngine"),
        ("app.pipelines.detect", "from app.engine import embedded"),
        ("app.pipelines.detect", "import fastapi"),
        ("app.bulk.driver", "from app.main import create_engine"),
        ("app.bulk.executors.base", "import loky"),
        ("app.bulk.executors.local", "import ray"),
        ("app.commands.bulk.executors", "import ray"),
        ("app.engine.triton.engine", "import grpc"),
        ("app.engine.embedded.engine", "def f():\n    import tritonclient.grpc"),
        ("app.pipelines.detect", "import app.engine.fake"),
        ("app.engine.base", "import onnxruntime as ort"),
        ("app.engine.triton.shared_memory", "from app.engine.embedded.engine import EmbeddedEngine"),
        ("app.engine.base", "from app.pipelines.base import Router"),
        ("app.engine.base", "from fastapi import Request"),
        ("app.media.image", "if True:\n    from export import artifacts"),
        ("app.cli", "from app.engine.triton.engine import TritonEngine"),
        ("app.metrics", "from app.settings import Settings"),
        ("app.vision.yolo", "from app.errors import GatewayError"),
        ("app.api.routes.detect.route", "from app.engine.base import Engine"),
        ("app.deadline", "import numpy"),
        ("app.new_module", "import os"),
        ("app.keys.access", "from app.api.gateway import Gateway"),
        ("app.process.malloc", "from app.api.server.connections import Connection"),
        ("app.api.routes.detect.route", "from app.main import create_app"),
        ("app.errors", "from fastapi import HTTPException"),
        ("app.main", "import export.yolo11"),
        ("export.yolo11", "from app.settings import Settings"),
        ("export.yolo11.graph", "import torch"),
        ("export.plan", "import torch"),
        ("export.yolo11", "from ultralytics import YOLO"),
    ],
)
def test_a_breach_is_seen(module: str, source: str) -> None:
    """The check above can fail."""
    assert breaches(module, source)


def _re_exports(source: str) -> list[str]:
    """Names that are imported as themselves, which marks them as another module's to import from here."""
    return [
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    ]


# Packages whose folder is one interface: their names may be imported from the package.
_INTERFACES = {"app", "app.metrics"}


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_names_are_imported_from_where_they_are_defined(path: Path) -> None:
    """No module passes on a name, by which a room would reach past its row."""
    if module_of(path) not in _INTERFACES:
        assert _re_exports(path.read_text(encoding="utf-8")) == []


def test_every_row_is_somebody_s() -> None:
    """No row outlives the modules that it was written for."""
    assert set(ALLOWED) == {row_of(module_of(path)) for path in SOURCES}


def test_a_re_export_is_seen() -> None:
    """The check above can fail."""
    assert _re_exports("from app.deadline import Deadline as Deadline") == ["Deadline"]


# What reads the world: a pure room's answers depend on its arguments alone.
IMPURE = {
    "asyncio", "datetime", "http", "io", "logging", "os", "random", "secrets", "shutil", "socket", "sqlite3",
    "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip
PURE_ROOMS = ("routing", "app.vision")
# Habit -> the only modules of app/ and routing/ that may have it.
HABITS = {
    # ONNX Runtime and Ray are told to report nothing; a Ray job finds its cluster in RAY_ADDRESS.
    "os.environ": ("app.settings", "app.engine", "app.bulk.executors.ray.cluster"),
    "os.getenv": ("app.settings",),
    "print": (
        "app.commands.routes",
        "app.cli",
        "app.commands.analyze",
        "app.commands.bench",
        "app.commands.branches",
        "app.commands.bulk.command",
        "app.commands.bulk.reading",
        "app.commands.bulk.report",
        "app.commands.bulk.status",
        "app.commands.bulk.tables",
        "app.commands.bulk.running",
        "app.commands.bulk.views",
        "app.commands.compare.command",
        "app.commands.doctor.command",
        "app.commands.gpu_check.command",
        "app.commands.plan.command",
        "app.commands.predict.command",
        "app.commands.backup.command",
        "app.commands.config",
        "app.commands.smoke.command",
        "app.commands.keys",
        "app.commands.serve",
        "app.commands.up",
        "app.commands.models",
        "app.commands.model_fetch",
        "app.commands.verify.command",
        "export.half.models",
    ),
}


def bad_habits(module: str, source: str) -> list[str]:
    """Environment, printing, and clocks or I/O in a pure room, under whatever name they were imported."""
    names = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute | ast.Name)
    ]
    taken = list(imports(source))
    found = [f"{module}: {name}" for name in {*names, *taken} & set(HABITS) if module not in HABITS[name]]
    if any(within(module, room) for room in PURE_ROOMS):
        found += [f"{module} imports {name}" for name in taken if name.partition(".")[0] in IMPURE]
    return found


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parts[-2] != "export"], ids=module_of)
def test_the_environment_is_read_in_one_place(path: Path) -> None:
    """Only the settings know environment variables, only the command line prints, and pure rooms are pure."""
    assert bad_habits(module_of(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("app.main", "import os\nhome = os.environ['HOME']"),
        ("app.api.routes.detect.route", "from os import environ"),
        ("routing.policy", "import os as o"),
        ("routing.policy", "import time"),
        ("app.vision.yolo", "from datetime import datetime"),
        ("app.pipelines.detect", "def f():\n    print('here')"),
        ("app.settings", "print('here')"),
    ],
)
def test_a_bad_habit_is_seen(module: str, source: str) -> None:
    """The check above can fail."""
    assert bad_habits(module, source)


def test_the_folder_triton_is_no_package() -> None:
    """An __init__.py there would shadow the Python package that torch imports."""
    assert list((ROOT / "triton").rglob("__init__.py")) == []
