"""Programs of the distribution that `make test` fetches."""

from __future__ import annotations

import os
import shutil

import pytest

from support.paths import ROOT

# By program: the folder below .build into which it is unpacked, and the target of the Makefile that does it.
_FETCHED = {
    "redis-server": ("redis", "redis-server"),
    "prometheus": ("prometheus", "prometheus"),
    "promtool": ("prometheus", "prometheus"),
    "haproxy": ("haproxy", "haproxy"),
    "chromium": ("chromium", "chromium"),
}


def program(name: str) -> str:
    """The path of a program: on PATH, or unpacked by the Makefile.

    Without it the test is skipped; under CI it fails.
    """
    folder, target = _FETCHED[name]
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])  # sbin is on root's PATH alone
    unpacked = ROOT / ".build" / folder / name
    found = shutil.which(name, path=path) or (str(unpacked) if unpacked.exists() else None)
    if found is None:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"no {name}; run: make {target}")
    return found
