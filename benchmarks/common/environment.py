"""Environment of a run: the machine, its GPUs, the versions, the servers."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from app import __version__
from app.commands.smoke.http import Http
from app.engine.triton.client import TritonClient
from app.errors import GatewayError
from app.process.gpus import queried
from benchmarks import ROOT

PACKAGES = (
    "numpy",
    "grpcio",
    "tritonclient",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python-headless",
    "uvicorn",
)
_GPU = ("name", "driver_version", "memory.total", "compute_cap")


def environment(triton_grpc: str, gateway: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the facts that ratios and digits depend on; None for absent ones. `headers` go to the gateway."""
    return {
        "cpu": _cpu(),
        "cpu_count": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average": os.getloadavg(),
        "gpus": gpus(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "gateway": __version__,
        "commit": _commit(),
        "triton": _triton(triton_grpc),
        "gateway_engine": _engine(gateway, headers),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def gpus() -> list[dict[str, str]]:
    """A row a GPU, as nvidia-smi has it; empty without one."""
    return [dict(zip(_GPU, row, strict=True)) for row in queried(_GPU, units=True)]


def device_name(found: dict[str, Any]) -> str:
    """For titles: the GPU where there is one, else the CPU."""
    names = [gpu["name"] for gpu in found["gpus"]]
    return ", ".join(names) or f"{found['cpu']}, {found['cpu_count']} cores"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _triton(url: str) -> str | None:
    client = TritonClient(url, 2)
    try:
        return client.server()[1]
    except GatewayError:
        return None
    finally:
        client.close()


def _engine(url: str, headers: Mapping[str, str]) -> str | None:
    http = Http(url, 2, headers)
    try:
        said = http.get("/v1/branches").json()
        return str(said["engine"]) if isinstance(said, dict) and "engine" in said else None
    except GatewayError:
        return None
    finally:
        http.close()
