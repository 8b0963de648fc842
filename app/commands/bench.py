"""`gateway bench`: the benchmark matrix of the repository that this code runs from."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from app.installation import needs_checkout

_PACKAGE = Path(__file__).resolve().parents[2] / "benchmarks"


def bench(arguments: Sequence[str]) -> int:
    """Run `benchmarks.matrix` in this process; 2 where the benchmarks are missing, as in an installed wheel."""
    if not (_PACKAGE / "matrix" / "__main__.py").is_file():
        print(f"gateway: {needs_checkout('bench', 'benchmarks/')}", file=sys.stderr)
        return 2
    _load_package()
    from benchmarks.matrix.__main__ import main  # noqa: PLC0415  # importable from here on

    return main(arguments)


def _load_package() -> None:
    """Import `benchmarks` by its path: the root of the repository need not be on the search path."""
    spec = importlib.util.spec_from_file_location("benchmarks", _PACKAGE / "__init__.py")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("benchmarks", name="benchmarks")
    package = sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
