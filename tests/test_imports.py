"""Who may import whom, as the architecture says; and what else no room may do."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT

SOURCES = sorted(path for room in ("app", "routing", "export") for path in (ROOT / room).rglob("*.py"))
STDLIB = set(sys.stdlib_module_names)
CODECS = {"cv2", "simplejpeg", "PIL", "av"}
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
    "export": ("export", "app.commands.up"),
    "app.main": ("app.cli", "app.commands"),
    "app.cli": ("app.start",),
    "benchmarks": ("app.commands.bench",),
    "deploy": (),
    "app.engine.triton": ("app.engine.triton", "app.main", "app.commands.smoke.triton"),
    "app.engine.embedded": ("app.engine.embedded", "app.main"),
    "app.engine.fake": (),
    "av": ("app.media",),
    "redis": ("app.state.redis",),
    "opentelemetry": ("app.process.tracing",),
    "app.process.tracing": ("app.main",),
    "app.state.redis": ("app.main",),
    "app.state.memory": ("app.main",),
    "yaml": ("app.documents",),
}
# Room -> what it may import beyond itself (prefixes); rooms without an entry are free within ONLY_IN.
ALLOWED = {
    "routing": set(),
    "app.vision": {"numpy", "scipy", "ftfy", "regex"},
    "app.media": {"numpy", "app.errors", "app.vision", *CODECS},
    "app.engine": {
        "numpy",
        "app.errors",
        "app.context",
        "routing",
        "onnxruntime",
        "grpc",
        "tritonclient",
        "google.protobuf",
    },
    "app.pipelines": {
        "numpy",
        "routing",
        "app.vision",
        "app.media",
        "app.engine.base",
        "app.errors",
        "app.hints",
        "app.metrics",
        "app.context",
        "app.state.base",
        "app.state.jobs",
        "app.__version__",
    },
    "app.videos.profile_documents": {"app.documents", "app.errors", "app.videos.profile", "pydantic"},
    "app.videos": {
        "numpy",
        "routing",
        "app.vision",
        "app.media",
        "app.engine.base",
        "app.pipelines",
        "app.errors",
        "app.hints",
        "app.metrics",
        "app.context",
        "app.state.base",
        "app.state.jobs",
        "app.__version__",
    },
    "app.sessions": {
        "app.vision",
        "app.engine.base",
        "app.pipelines",
        "app.errors",
        "app.metrics",
        "app.state.base",
    },
    "app.state": {"app.errors", "redis"},
    "app.documents": {"app.errors", "yaml"},
    "app.keys.access": {"app.errors"},
    "app.keys.rate_limit": {"app.keys.access"},
    "app.process.drain": set(),
    "app.process.shutdown": {"app.process.drain"},
    "app.api": {
        "app.keys.access",
        "app.documents",
        "app.process.drain",
        "app.pipelines",
        "app.sessions",
        "app.videos",
        "app.errors",
        "app.hints",
        "app.settings",
        "app.metrics",
        "app.context",
        "orjson",
        *WEB,
    },
    "app.errors": set(),
    "app.hints": set(),
    "app.extras": {"app.installation"},
    "app.installation": {"platformdirs"},
    "app.metrics": {"prometheus_client"},
    "app.context": set(),
    "app.process.logs": {"app.context"},
    "app.process.tracing": {"app.context", "app.errors", "app.__version__", "opentelemetry"},
    "export.yolo11": {"routing", "numpy", "onnx", "onnxruntime", "export"},
    "export": {
        "routing",
        "numpy",
        "onnx",
        "onnxruntime",
        "torch",
        "torchvision",
        "transformers",
        "tqdm",
    },
}


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
    """What `module` imports and may not."""
    room = next((room for room in ALLOWED if within(module, room)), None)
    found = []
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
        ("app.vision.nms", "import cv2"),
        ("app.media.image", "from app.pipelines import base"),
        ("app.pipelines.detect", "from app.engine.triton.engine import TritonEngine"),
        ("app.pipelines.detect", "from app.engine import embedded"),
        ("app.pipelines.detect", "import fastapi"),
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
        ("app.vision.nms", "from app.errors import GatewayError"),
        ("app.api.routes.detect", "from app.engine.base import Deadline"),
        ("app.api.routes.detect", "from app.main import create_app"),
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


# What reads the world: a pure room's answers depend on its arguments alone.
IMPURE = {
    "asyncio", "datetime", "http", "io", "logging", "os", "random", "secrets", "shutil", "socket", "sqlite3",
    "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip
PURE_ROOMS = ("routing", "app.vision")
# Habit -> the only modules of app/ and routing/ that may have it.
HABITS = {
    "os.environ": ("app.settings", "app.engine"),  # app.engine tells ONNX Runtime to report nothing
    "os.getenv": ("app.settings",),
    "print": (
        "app.commands.routes",
        "app.cli",
        "app.commands.analyze",
        "app.commands.bench",
        "app.commands.branches",
        "app.commands.doctor.command",
        "app.commands.predict.command",
        "app.commands.config",
        "app.commands.smoke.command",
        "app.commands.keys",
        "app.commands.serve",
        "app.commands.up",
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
        ("app.api.routes.detect", "from os import environ"),
        ("routing.policy", "import os as o"),
        ("routing.policy", "import time"),
        ("app.vision.nms", "from datetime import datetime"),
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
