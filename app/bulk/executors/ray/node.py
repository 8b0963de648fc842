"""Worker in one Ray actor.

Ray sends the code of this module to the nodes, so that a node without this program can say so. Nothing but Ray and the
standard library may be imported before `ready` has found the program.
"""

from __future__ import annotations

import os
import pickle
import socket
from typing import Any

import ray


class NodeWorker:
    """One worker of a run; `ready` is called before anything else, also after a restart.

    `stop` is called on another thread than `analyse`.
    """

    def __init__(self, made_of: bytes) -> None:
        """`made_of`: the pickled function that makes the worker; `ready` reads it."""
        self._made_of = made_of
        self._worker: Any = None

    def ready(self, version: str) -> dict[str, str | None]:
        """Make the worker, and return its `name`, `host` and Ray's id of the `node`; `fault` says why there is none.

        Args:
            version: of the program that drives the run.
        """
        fault = None if self._worker is not None else self._begin(version)
        host = socket.gethostname()
        node = ray.get_runtime_context().get_node_id()
        return {"host": host, "name": f"{host}:{os.getpid()}", "node": node, "fault": fault}

    def _begin(self, version: str) -> str | None:
        try:
            from triton_vision_gateway import add_to_path  # noqa: PLC0415  # see the module

            add_to_path()
            from app import __version__ as here  # noqa: PLC0415  # ditto
        except ModuleNotFoundError as error:
            return f"lacks triton-vision-gateway: {error}"
        if here != version:
            return f"has triton-vision-gateway {here}, this command is {version}: install the same version"
        try:
            self._worker = pickle.loads(self._made_of)()  # noqa: S301  # from the driver of this run
        except ModuleNotFoundError as error:
            return f"lacks a package of this run: {error}"
        except Exception as error:  # noqa: BLE001  # it is the driver that can tell a person
            return f"can't make a worker: {type(error).__name__}: {error}"
        return None

    def analyse(self, entry: Any, attempt: int) -> Any:
        """Return the outcome of an entry."""
        return self._worker.analyse(entry, attempt)

    def stop(self) -> None:
        """End the entry under way."""
        if self._worker is not None:
            self._worker.stop()

    def close(self) -> None:
        """Release what the worker holds."""
        if self._worker is not None:
            self._worker.close()
