"""Pictures and videos as callers have them, made ready to be sent. Files are read here; nothing is decoded."""

from __future__ import annotations

import asyncio
import base64
import io
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triton_vision_gateway_client.png import encode_png

_PIECE = 1 << 18  # bytes of a video that are in memory at once
_CHANNELS = 3
_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"RIFF", "image/webp"),
    (b"BM", "image/bmp"),
)


class PillowImage(Protocol):
    """The part of `PIL.Image.Image` that is used; Pillow itself need not be installed."""

    @property
    def mode(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    def convert(self, mode: str, /) -> Any: ...
    def save(self, file: Any, format: str, /) -> None: ...  # noqa: A002  # the name in Pillow


Data: TypeAlias = bytes | bytearray | memoryview
PictureLike: TypeAlias = str | os.PathLike[str] | Data | IO[bytes] | NDArray[np.uint8] | PillowImage
"""A picture: a path, the bytes of a file, an open file, an RGB array `(height, width, 3)` of uint8, or a PIL image."""
VideoLike: TypeAlias = str | os.PathLike[str] | Data | IO[bytes]
"""A video: a path, the bytes of a file, or an open file."""


def picture_bytes(picture: PictureLike) -> bytes:
    """Return the encoded picture. Files are sent as they are; arrays and PIL images become PNG, without loss.

    Raises:
        TypeError: it is none of `PictureLike`.
        ValueError: the array's shape or the image's mode is no picture.
        OSError: the file can't be read.
    """
    if isinstance(picture, str | os.PathLike):
        return Path(picture).read_bytes()
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, np.ndarray):
        return _array_bytes(picture)
    if hasattr(picture, "read"):
        return _read(picture)
    if hasattr(picture, "convert") and hasattr(picture, "mode"):
        return _pillow_bytes(picture)
    raise TypeError(
        f"a picture is a path, bytes, a file, an array or a PIL image, not {type(picture).__name__}"
    )


def media_type(content: bytes) -> str:
    """Return the media type that a picture's first bytes show."""
    return next(
        (kind for start, kind in _SIGNATURES if content.startswith(start)), "application/octet-stream"
    )


def data_uri(content: bytes) -> str:
    """Return a picture as a data URI."""
    return f"data:{media_type(content)};base64,{base64.b64encode(content).decode('ascii')}"


def name_of(source: object) -> str | None:
    """Return the name of the file behind a path or an open file."""
    if isinstance(source, str | os.PathLike):
        return Path(source).name
    name = getattr(source, "name", None)
    return Path(name).name if isinstance(name, str) else None


def _read(file: Any) -> bytes:
    content = file.read()
    if not isinstance(content, bytes):
        raise TypeError("open the file in binary mode: open(path, 'rb')")
    return content


def _array_bytes(array: NDArray[Any]) -> bytes:
    if array.dtype != np.uint8:
        raise TypeError(f"a picture's array is uint8, 0 to 255, not {array.dtype}")
    if array.ndim != _CHANNELS or array.shape[2] != _CHANNELS or 0 in array.shape:
        raise ValueError(
            f"a picture's array has the shape (height, width, 3), in RGB order, not {array.shape}"
        )
    return encode_png(array)


def _pillow_bytes(image: PillowImage) -> bytes:
    if image.mode in {"F", "I"}:
        raise ValueError(f"a PIL image of mode {image.mode} has no range of values; convert it to RGB first")
    if image.mode.startswith("I;16"):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()
    return encode_png(np.asarray(image.convert("RGB"), dtype=np.uint8))


class Upload:
    """The content of a video, in pieces; a path or a file that can be rewound may be sent several times.

    `size` is in bytes, None if it is known only at the end.
    """

    def __init__(self, video: VideoLike) -> None:
        self.name = name_of(video)
        self._path: Path | None = None
        self._file: IO[bytes] | None = None
        self._start = 0
        if isinstance(video, str | os.PathLike):
            self._path = Path(video)
            self.size: int | None = self._path.stat().st_size
        elif isinstance(video, bytes | bytearray | memoryview):
            self._file, self.size = io.BytesIO(bytes(video)), len(bytes(video))
        elif hasattr(video, "read"):
            self._file = video
            self._start, self.size = _extent(video)
        else:
            raise TypeError(f"a video is a path, bytes or a file, not {type(video).__name__}")

    @property
    def repeatable(self) -> bool:
        """True if the content can be sent a second time."""
        return self.size is not None

    def pieces(self) -> Iterator[bytes]:
        """Yield the content from its beginning."""
        if self._path is not None:
            with self._path.open("rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
            return
        assert self._file is not None  # noqa: S101  # one of the two is there
        if self.repeatable:
            self._file.seek(self._start)
        while piece := self._file.read(_PIECE):
            if not isinstance(piece, bytes):
                raise TypeError("open the file in binary mode: open(path, 'rb')")
            yield piece

    async def pieces_async(self) -> AsyncIterator[bytes]:
        """Yield the content; the file is read on another thread."""
        pieces = self.pieces()
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                yield piece
        finally:
            pieces.close()  # type: ignore[attr-defined]  # it is a generator


def _extent(file: IO[bytes]) -> tuple[int, int | None]:
    """Return where a file stands, and the number of bytes from there; None if it can't be rewound."""
    try:
        start = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(start)
    except (OSError, AttributeError, ValueError):
        return 0, None
    return start, end - start
