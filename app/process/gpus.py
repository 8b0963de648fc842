"""NVIDIA GPUs of this machine, as `nvidia-smi` reports them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_PATIENCE_S = 20.0  # a driver that has to be loaded first takes seconds
_FIELDS = ("index", "name", "memory.total", "memory.used", "driver_version", "compute_cap")
_MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. `used`: memory that all programs together take, in bytes, as `total`."""

    index: int
    name: str
    total: int
    used: int
    driver: str
    compute: str


def found() -> list[Gpu]:
    """The GPUs, in the driver's order; one whose memory isn't reported is left out."""
    return [
        Gpu(int(index), name, int(total) * _MEBIBYTE, int(used) * _MEBIBYTE, driver, compute)
        for index, name, total, used, driver, compute in queried(_FIELDS, units=False)
        if index.isdecimal() and total.isdecimal() and used.isdecimal()
    ]


def queried(fields: Sequence[str], *, units: bool) -> list[list[str]]:
    """The values of these fields of `nvidia-smi --query-gpu`, a row per GPU; none without it, or if it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    form = "csv,noheader" if units else "csv,noheader,nounits"
    command = [program, f"--query-gpu={','.join(fields)}", f"--format={form}"]
    try:
        done = subprocess.run(  # noqa: S603  # its own arguments
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    rows = ([cell.strip() for cell in line.split(",")] for line in lines)
    return [row for row in rows if len(row) == len(fields)]
