"""Archives of arrays (npz), written completely or not at all, without pickle; equal arrays give equal bytes."""

from __future__ import annotations

import errno
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from app.media.abandoned import temporary_file

_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's own zero: the time of writing would make every archive another one
_LEVEL = 1  # floats hardly shrink; masks and padding do at any level
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Blocks:
    """An array that is too large for memory: written block by block along its first axis.

    `shape` and `dtype` are those of the whole; the blocks' first sides add up to `shape[0]`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Iterable[NDArray[Any]]


@contextmanager
def atomically(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """Write a temporary file that becomes `path` once it is complete and on disk; on any failure nothing changes.

    Raises:
        FileExistsError: `path` exists, and `replace` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, fresh = temporary_file(path)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.chmod(0o644)
        if replace:
            fresh.replace(path)
        else:
            _link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _link(fresh: Path, path: Path) -> None:
    """Give a file a second name that must not exist."""
    try:
        os.link(fresh, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: not in one step
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        fresh.replace(path)


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any] | Blocks]) -> None:
    """Write an archive that `numpy.load(path, allow_pickle=False)` reads.

    Raises:
        OSError: it can't be written; what stood there before still does.
        ValueError: an array of objects, or blocks that don't add up.
    """
    with atomically(path) as file:
        write_archive(file, arrays)


def write_archive(file: BinaryIO, arrays: Mapping[str, NDArray[Any] | Blocks]) -> None:
    """Write the same archive into an open file.

    Raises:
        OSError: it can't be written.
        ValueError: an array of objects, or blocks that don't add up.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as member:
                _write(member, name, array)


def _write(member: IO[bytes], name: str, array: NDArray[Any] | Blocks) -> None:
    if not isinstance(array, Blocks):
        np.lib.format.write_array(member, np.asanyarray(array), version=(1, 0), allow_pickle=False)
        return
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape,
    }  # fmt: skip
    np.lib.format.write_array_header_1_0(member, header)
    rows, pending = 0, bytearray()
    for block in array.blocks:
        rows += len(block)
        pending += np.ascontiguousarray(block, array.dtype).data if block.size else b""
        while len(pending) >= _PIECE:  # pieces of one size: how an array was cut into blocks changes no byte
            member.write(pending[:_PIECE])
            del pending[:_PIECE]
    member.write(pending)
    if rows != array.shape[0]:
        raise ValueError(f"{name}: {rows} rows were given for {array.shape[0]}")


def text_blocks(texts: Sequence[str]) -> Blocks:
    """Yield `numpy.array(texts)` in blocks, since every text takes the room of the longest."""
    dtype = np.array([max(texts, key=len, default="")]).dtype
    step = max(1, _PIECE // dtype.itemsize)
    blocks = (np.array(texts[first : first + step], dtype) for first in range(0, len(texts), step))
    return Blocks((len(texts),), dtype, blocks)


class Archive:
    """An archive whose arrays are read whole, or a few rows at a time; use it in a `with`."""

    def __init__(self, source: Path | BinaryIO) -> None:
        """Open an archive; an open file stays the caller's.

        Raises:
            OSError: it can't be read.
            zipfile.BadZipFile: it is none.
        """
        self._zip = zipfile.ZipFile(source)
        self.names = [name.removesuffix(".npy") for name in self._zip.namelist()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def shape(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and dtype of an array."""
        with self._zip.open(f"{name}.npy") as member:
            return _header(member)

    def whole(self, name: str) -> NDArray[Any]:
        """Return one array."""
        with self._zip.open(f"{name}.npy") as member:
            array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
            return array

    def blocks(self, names: Sequence[str], rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield `rows` rows at a time of arrays that have as many rows as each other.

        Raises:
            ValueError: they have not, or the archive is damaged.
        """
        with ExitStack() as opened:
            members = {name: opened.enter_context(self._zip.open(f"{name}.npy")) for name in names}
            headers = {name: _header(member) for name, member in members.items()}
            lengths = {shape[0] for shape, _ in headers.values()}
            if len(lengths) != 1:
                raise ValueError(f"arrays of different lengths: {', '.join(names)}")
            (left,) = lengths
            while left > 0:
                count = min(rows, left)
                yield {name: _rows(members[name], *headers[name], count) for name in names}
                left -= count


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    np.lib.format.read_magic(member)
    shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    return shape, dtype


def _rows(member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    data = member.read(count * dtype.itemsize * math.prod(shape[1:]))
    return np.frombuffer(data, dtype).reshape(count, *shape[1:])
