"""NVIDIA GPUs of this machine, as `nvidia-smi` reports them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
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
    """The GPUs, in the driver's order; none without `nvidia-smi`, or if it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603  # its own arguments
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return list(parse(done.stdout)) if done.returncode == 0 else []


def parse(text: str) -> Iterator[Gpu]:
    """Read the rows that `nvidia-smi` prints; one whose memory isn't reported is left out."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == len(_FIELDS) and all(cells[place].isdecimal() for place in (0, 2, 3)):
            index, name, total, used, driver, compute = cells
            yield Gpu(int(index), name, int(total) * _MEBIBYTE, int(used) * _MEBIBYTE, driver, compute)
