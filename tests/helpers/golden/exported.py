"""Shared parts of the scripts that make golden data of exported families."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from export import build, manifest
from export.plan import Places
from routing import catalogue


def digests(branches: Iterable[str]) -> dict[str, str]:
    """Export branches with random weights into a folder that is removed; the digests of their models.

    Raises:
        RuntimeError: an export failed.
    """
    known = catalogue.load()
    wanted = [known.branches[name] for name in branches]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
        places = Places(Path(folder) / "repository", Path(folder) / "models")
        if build.models(known, wanted, "random", places):
            raise RuntimeError(said.getvalue())
        records = [manifest.read(branch.weights_model, places.repository) for branch in wanted]
    return {record.model: record.digest for record in records if record}


def rows(facts: Mapping[str, Any], name: str, table: Iterable[Mapping[str, Any]]) -> str:
    """JSON with one line per fact and one line per row of the table."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items()]
    body = ",\n".join(f"  {json.dumps(row)}" for row in table)
    return "{\n" + ",\n".join([*lines, f' "{name}": [\n{body}\n ]']) + "\n}\n"


def versions(*modules: ModuleType) -> dict[str, str]:
    """The versions that an answer was made with: of Python, and of these modules by their names."""
    return {"python": sys.version.split()[0], **{_name(module): module.__version__ for module in modules}}


def _name(module: ModuleType) -> str:
    return "pillow" if module.__name__ == "PIL" else module.__name__
