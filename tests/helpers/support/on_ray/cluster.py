"""A real Ray cluster on this machine: a head without workers, and nodes that can be killed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import psutil
from ray.cluster_utils import Cluster

_STORE_BYTES = 80 << 20


class RayCluster:
    """Start with `with RayCluster(2) as cluster:`; every node has one CPU and so many of the resources that are given.

    Workers take the environment that the process has when their node starts.
    """

    def __init__(self, nodes: int, resources: Mapping[str, float] | None = None) -> None:
        self._number = nodes
        self._resources = dict(resources or {})
        self.nodes: list[Any] = []

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def __enter__(self) -> RayCluster:
        logging.getLogger("ray").setLevel(logging.ERROR)
        self._cluster = Cluster()
        try:
            self._cluster.add_node(num_cpus=0, object_store_memory=_STORE_BYTES, include_dashboard=False)
            for _ in range(self._number):
                self.add()
        except BaseException:
            self._cluster.shutdown()
            raise
        return self

    def add(self) -> None:
        """Start one more node."""
        node = self._cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES, resources=self._resources)
        self.nodes.append(node)

    def kill_node(self, worker: int | None = None) -> None:
        """End a node with all its workers, without a word to anybody: that of a worker's process id, or the oldest."""
        node = self.nodes[0] if worker is None else self._node_of(worker)
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def _node_of(self, worker: int) -> Any:
        raylet = psutil.Process(worker).ppid()
        return next(node for node in self.nodes if _raylet(node) == raylet)

    def workers(self) -> list[psutil.Process]:
        """Return the processes of actors that analyse a video now."""
        found = []
        for node in self.nodes:
            found += [child for child in psutil.Process(_raylet(node)).children() if _analyses(child)]
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.shutdown()


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _analyses(process: psutil.Process) -> bool:
    try:
        return "NodeWorker.analyse" in " ".join(process.cmdline())
    except psutil.Error:  # it has ended meanwhile
        return False
