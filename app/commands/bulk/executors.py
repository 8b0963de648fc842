"""Executors of `gateway bulk`, by the name that `--on` takes. Each is imported when it is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from app import extras
from app.bulk.executors.base import Executor
from app.process.cores import available_cores
from app.settings import Settings

WORKER = "app.commands.bulk.worker"


def workers_of(parsed: argparse.Namespace) -> int:
    """Return the number of workers: a video keeps one core busy with decoding, and one with its frames."""
    return parsed.workers or max(1, available_cores() // 2)


def _local(parsed: argparse.Namespace) -> Executor:
    if parsed.address or parsed.node_triton:
        raise RuntimeError("--address and --node-triton go with --on ray")
    from app.bulk.executors.local import LocalExecutor  # noqa: PLC0415  # an extra: bulk

    executor = LocalExecutor(workers_of(parsed))
    executor.prepare(WORKER)
    return executor


def _ray(parsed: argparse.Namespace) -> Executor:
    lacking = extras.missing("ray")
    if lacking is not None:
        raise RuntimeError(lacking)
    from app.bulk.executors.ray.cluster import Needs  # noqa: PLC0415  # an extra: ray
    from app.bulk.executors.ray.executor import RayExecutor, RayOptions  # noqa: PLC0415  # as above

    needs = Needs(parsed.worker_cpus, triton=parsed.node_triton)
    return RayExecutor(RayOptions(parsed.address, parsed.workers, needs), available_cores())


def on_nodes(settings: Settings, worker_cpus: int, *, node_triton: bool) -> Settings:
    """Return the settings of workers on other machines: absolute paths, and as many threads as they reserve CPUs.

    Raises:
        RuntimeError: they are to use the Triton of their node, and the engine is another one.
    """
    if node_triton and settings.engine != "triton":
        raise RuntimeError("--node-triton needs Triton: add --triton-url, such as 127.0.0.1:8001")
    paths = {"repository": settings.repository, "catalogue": settings.own_catalogue}
    paths |= {name: getattr(settings, name) for name in settings.model_fields_set}
    changed = {name: path.absolute() for name, path in paths.items() if isinstance(path, Path)}
    threads = settings.embedded_threads or worker_cpus
    return settings.model_copy(update={**changed, "embedded_threads": threads})


EXECUTORS: Mapping[str, Callable[[argparse.Namespace], Executor]] = MappingProxyType(
    {"local": _local, "ray": _ray}
)


def create_executor(parsed: argparse.Namespace) -> Executor:
    """Start the executor that `--on` names.

    Raises:
        RuntimeError: its package is missing, or it can't be started.
    """
    lacking = extras.missing("bulk")
    if lacking is not None:
        raise RuntimeError(lacking)
    return EXECUTORS[parsed.on](parsed)
