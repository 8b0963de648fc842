"""Notes of first runs that succeeded, beside the cached graphs, so that later starts don't repeat them.

A note is named by everything that a first run on a processor can depend on: the digests of the branch's graphs, its
tensors, ONNX Runtime's build, the processor. A run that failed, or that its process didn't survive, leaves none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from app.engine.embedded.graph_cache import machine, trusted
from app.engine.embedded.model import Graph
from routing.catalogue import Branch

_NOTE = ".ran"
_MOST = 1000  # notes in the folder, about a kilobyte each
_FORMAT = 1


class FirstRuns:
    """The first runs that have succeeded on this machine. Any number of processes may share the folder.

    Args:
        folder: of the cached graphs; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def done(self, branch: Branch, graphs: Sequence[Graph]) -> bool:
        """True if these graphs have run here before, as this branch."""
        content = _content(branch, graphs)
        try:
            known = trusted(self._folder) and self._path(content).read_bytes() == content
        except OSError:
            return False
        if known:
            with contextlib.suppress(OSError):  # a folder that can only be read
                os.utime(self._path(content))
        return known

    def note(self, branch: Branch, graphs: Sequence[Graph]) -> None:
        """Note that they have run. Best effort: without a note, the next start runs them again."""
        content = _content(branch, graphs)
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not trusted(self._folder):
                return
            with tempfile.NamedTemporaryFile(prefix=".", dir=self._folder, delete=False) as file:
                temporary = Path(file.name)
                file.write(content)
            temporary.replace(self._path(content))
            self._bound()

    def _bound(self) -> None:
        """Remove the notes that were used least recently."""
        notes = sorted(self._folder.glob(f"*{_NOTE}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in notes[_MOST:]:
            path.unlink(missing_ok=True)

    def _path(self, content: bytes) -> Path:
        return self._folder / f"{hashlib.sha256(content).hexdigest()}{_NOTE}"


def _content(branch: Branch, graphs: Sequence[Graph]) -> bytes:
    steps = [(graph.name, graph.digest, dict(graph.input_map), dict(graph.output_map)) for graph in graphs]
    tensors = [astuple(spec) for spec in (*branch.inputs, *branch.outputs)]
    document = {"branch": branch.name, "format": _FORMAT, "graphs": steps, "tensors": tensors, **machine()}
    return json.dumps(document, sort_keys=True).encode()
