"""A video as the source of an analysis: a file, or an object in a bucket that is fetched first."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

from app.videos.stores.opened import bucket_and_key, is_remote, local_path, open_bucket

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """One video.

    Args:
        name: as the manifest and every message give it.
        uri: a path, `file:///path`, or `s3://bucket/key`.
        id: names the video in the manifest and the artefacts; by default its name.
        sha256: of the file in hex, if it is known.
        origin: fields of the manifest's `input` beside the name, the length and the digest.
    """

    name: str
    uri: str
    id: str | None = None
    sha256: str | None = None
    origin: Mapping[str, str] = field(default_factory=dict)

    def place(self) -> dict[str, str]:
        """Return the URL of an object and the tag of its content; nothing for a file.

        Raises:
            OSError: there is no such object, or it can't be asked for.
        """
        if not is_remote(self.uri):
            return {}
        bucket, key = bucket_and_key(self.uri)
        return {"url": self.uri, "etag": open_bucket(bucket).tag(key)}

    @contextmanager
    def opened(self, check: Callable[[], None]) -> Iterator[BinaryIO]:
        """Context manager with the video, which can be read at any position.

        An object is copied to a temporary file first: a decoder reads here and there. `check` is called now and then;
        what it raises ends the work.

        Raises:
            OSError: it can't be read; the words are plain and hold no credentials.
        """
        if not is_remote(self.uri):
            with _opened_file(local_path(self.uri)) as file:
                yield file
            return
        with tempfile.TemporaryFile(prefix="gateway-") as copy:
            bucket, key = bucket_and_key(self.uri)
            with open_bucket(bucket).open(key) as file:
                _copy(file, copy, check)
            yield copy


@contextmanager
def _opened_file(path: Path) -> Iterator[BinaryIO]:
    """Context manager with a file; a pipe would be waited for, and a device may never end.

    Raises:
        OSError: it is none, or can't be read.
    """
    with open(path, "rb", opener=_open_at_once) as file:  # Path.open takes no opener
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
        yield file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _copy(file: BinaryIO, copy: IO[bytes], check: Callable[[], None]) -> None:
    while block := file.read(_BLOCK_BYTES):
        check()
        copy.write(block)
    copy.flush()
    copy.seek(0)
