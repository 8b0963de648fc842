"""Files that are either whole or absent: atomic writes, hard links and digests."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from export.errors import ExportError

MODEL_FILE = "model.onnx"
_LOCK = ".lock"


def write_atomic(path: Path, content: bytes) -> None:
    """Put `content` at `path`: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_if_changed(path: Path, content: bytes) -> bool:
    """`write_atomic`, unless the file holds just that already. Says whether it wrote."""
    if path.is_file() and path.read_bytes() == content:
        return False
    write_atomic(path, content)
    return True


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, atomically; a copy where the file system can't link.

    Hard links, because Triton refuses symbolic ones that leave the model's folder.
    """
    if target.is_file() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with beside(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A free name in the folder of `path`, renamed to `path` at a good end and removed at a bad one."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one that makes files under `folder`; the lock ends with the process, however that ends.

    Raises:
        ExportError: somebody else is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ExportError(f"another run makes models in {folder}; wait until it has ended") from error
        yield


def sweep(folder: Path) -> None:
    """Remove what a run that was killed has left of files that it hadn't finished; see `alone`."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(files: Mapping[str, str]) -> str:
    """One `sha256:<hex>` for a model, from `{file name: hexadecimal SHA-256}` of its files.

    A lone `model.onnx` stands for itself, so that `sha256sum` shows the same number. With external data it is the
    SHA-256 over the sorted lines that `sha256sum` prints for the files: digest, two blanks, name, newline.
    """
    if set(files) == {MODEL_FILE}:
        return f"sha256:{files[MODEL_FILE]}"
    lines = sorted(f"{hexadecimal}  {name}\n" for name, hexadecimal in files.items())
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
