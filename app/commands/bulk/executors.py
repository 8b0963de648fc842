"""Executors of `gateway bulk`, by the name that `--on` takes. Each is imported when it is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from types import MappingProxyType

from app import extras
from app.bulk.executors.base import Executor
from app.process.cores import available_cores

WORKER = "app.commands.bulk.worker"


def workers_of(parsed: argparse.Namespace) -> int:
    """Return the number of workers: a video keeps one core busy with decoding, and one with its frames."""
    return parsed.workers or max(1, available_cores() // 2)


def _local(parsed: argparse.Namespace) -> Executor:
    from app.bulk.executors.local import LocalExecutor  # noqa: PLC0415  # an extra: bulk

    executor = LocalExecutor(workers_of(parsed))
    executor.prepare(WORKER)
    return executor


EXECUTORS: Mapping[str, Callable[[argparse.Namespace], Executor]] = MappingProxyType({"local": _local})


def create_executor(parsed: argparse.Namespace) -> Executor:
    """Start the executor that `--on` names.

    Raises:
        RuntimeError: its package is missing, or it can't be started.
    """
    lacking = extras.missing("bulk")
    if lacking is not None:
        raise RuntimeError(lacking)
    return EXECUTORS[parsed.on](parsed)
