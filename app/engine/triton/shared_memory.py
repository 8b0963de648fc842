"""System shared memory that Triton can map: regions, and who owns them.

Every gateway process holds an exclusive `flock` on a file of its own, `<instance>.lock`, for as long as it lives;
its regions are named after it. Whoever can take the lock of another instance knows that its owner is dead, whatever
process ids say (containers share `/dev/shm` but not their ids), and removes what it left.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.base import NUMPY_DTYPES
from routing.catalogue import TensorSpec

SHM_FOLDER = Path("/dev/shm")  # noqa: S108  # where shm_open puts its files on Linux: Triton opens the same
_PREFIX = "triton-gateway-"
_INSTANCE = re.compile(rf"{_PREFIX}[0-9a-f]{{16}}")
_PAGE = mmap.PAGESIZE


class Instance:
    """This process's claim on its regions; one per engine.

    Raises:
        OSError: the folder can't be written (no shared memory on this host).
    """

    def __init__(self, folder: Path = SHM_FOLDER) -> None:
        self.folder = folder
        self.name = f"{_PREFIX}{secrets.token_hex(8)}"
        self._lock_path = folder / f"{self.name}.lock"
        # Locked under a name that no sweep looks at, then renamed: never visible unlocked.
        fresh = folder / f".{self.name}.new"
        self._lock_fd = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fresh.rename(self._lock_path)

    def regions(self) -> list[str]:
        """Names of the regions that are there now."""
        return [path.name for path in _regions(self.folder, self.name)]

    def close(self) -> None:
        """Remove every region that is left, then give up the claim; a second call does nothing."""
        if self._lock_fd < 0:
            return
        _remove(self.folder, self.name)
        self._lock_path.unlink(missing_ok=True)
        os.close(self._lock_fd)
        self._lock_fd = -1


def sweep(folder: Path = SHM_FOLDER) -> list[str]:
    """Remove what dead instances left in `folder`; the names of their regions.

    A living instance's regions are never touched: its lock can't be taken.
    """
    removed: list[str] = []
    for lock_path in folder.glob(f"{_PREFIX}*.lock"):
        instance = lock_path.name.removesuffix(".lock")
        if not _INSTANCE.fullmatch(instance):
            continue
        try:
            fd = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # removed by another sweep, or owned by another user
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            removed += _remove(folder, instance)
            lock_path.unlink(missing_ok=True)
        except OSError:  # its owner lives
            continue
        finally:
            os.close(fd)
    return removed


def ownerless(names: Iterable[str], folder: Path = SHM_FOLDER) -> list[str]:
    """Return the regions of a server that belonged to a gateway of which nothing is left in `folder`.

    Another server's gateway may have swept up after it: that one knows nothing of this server.
    """
    found = []
    for name in names:
        instance = _INSTANCE.match(name)
        if instance and not (folder / name).exists() and not (folder / f"{instance[0]}.lock").exists():
            found.append(name)
    return found


def _regions(folder: Path, instance: str) -> list[Path]:
    return [path for path in folder.glob(f"{instance}-*") if path.suffix != ".lock"]


def _remove(folder: Path, instance: str) -> list[str]:
    regions = _regions(folder, instance)
    for path in regions:
        path.unlink(missing_ok=True)
    return [path.name for path in regions]


@dataclass(frozen=True, slots=True)
class Slot:
    """Place of a tensor in a region: offset and length in bytes."""

    spec: TensorSpec
    offset: int


class Region:
    """One file in shared memory that holds all tensors of a lease, each from a page's start.

    Args:
        instance: the owner.
        label: what it is for; part of the name.
        specs: the tensors, in order.

    Raises:
        OSError: no room (a container's /dev/shm is often 64 MB) or no permission.
    """

    def __init__(self, instance: Instance, label: str, specs: Sequence[TensorSpec]) -> None:
        self.name = f"{instance.name}-{label}-{secrets.token_hex(4)}"
        self.key = f"/{self.name}"
        self.slots, self.nbytes = _layout(specs)
        self._path = instance.folder / self.name
        fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            # Allocated now: a page that can't be had later would be a SIGBUS in the middle of a request.
            os.posix_fallocate(fd, 0, self.nbytes)
            self._mapping = mmap.mmap(fd, self.nbytes)
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Views of all tensors, by name."""
        return {
            name: np.frombuffer(
                self._mapping,
                dtype=NUMPY_DTYPES[slot.spec.datatype],
                count=int(np.prod(slot.spec.shape)),
                offset=slot.offset,
            ).reshape(slot.spec.shape)
            for name, slot in self.slots.items()
        }

    def unlink(self) -> None:
        """Remove the name; the memory goes with the last view of it."""
        self._path.unlink(missing_ok=True)


def _layout(specs: Sequence[TensorSpec]) -> tuple[Mapping[str, Slot], int]:
    slots: dict[str, Slot] = {}
    end = 0
    for spec in specs:
        slots[spec.name] = Slot(spec, end)
        end += -(-spec.nbytes // _PAGE) * _PAGE
    return slots, end
