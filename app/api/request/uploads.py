"""The bodies of requests with pictures or videos, raw or as a form.

A video goes to a file as it comes, everything else stays in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fastapi import Request

from app.api.request.content_encoding import chunks_of
from app.api.request.headers import comes_whole, headers_of
from app.api.request.multipart import FormReader, boundary_of
from app.api.request.requests import check_announced, read_body, receiving
from app.deadline import Deadline
from app.errors import GatewayError, InvalidParameter, PayloadTooLarge, VideosUnavailable
from app.media.containers import sniff_container
from app.media.image import is_picture
from app.settings import Settings

_SNIFF_BYTES = 4096
_PIECE = 1 << 20
_FORM_BYTES = 1 << 21  # of a form around its parts
OpenFile = Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Spooled:
    """A video in a file of its own: its length in bytes and its SHA-256 in hex. Close the file when done.

    `name` is the file name that a form gives it, as it was sent.
    """

    file: BinaryIO
    nbytes: int
    sha256: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """A video, or other parts in memory, by name; a raw body is the part `file`. `fields` are those of a form.

    `names` are the file names of a form's pictures `file`, as they were sent.
    """

    video: Spooled | None
    parts: Mapping[str, list[bytes]]
    form: bool
    fields: Mapping[str, list[str]] = field(default_factory=dict)
    names: tuple[str | None, ...] = ()

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the video if what is done inside fails."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the video, if there is one."""
        if self.video is not None:
            self.video.file.close()


class _Part:
    """One body or part, in memory until its first bytes say that it is a video."""

    def __init__(self, receiver: _Receiver, filename: str | None, *, may_be_video: bool) -> None:
        self._receiver = receiver
        self.filename = filename
        self._undecided = may_be_video
        self._pieces: list[bytes] = []
        self.size = 0
        self.file: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self.size += len(data)
        if self._undecided and self.size >= _SNIFF_BYTES:
            self.decide()
        self._check_size()

    def decide(self) -> None:
        """Detect the type from the first bytes and choose the limit that applies."""
        if self._undecided:
            self._undecided = False
            if self._receiver.is_video(self.value()):
                self.file, self._digest = self._receiver.open_video(), hashlib.sha256()
            self._check_size()

    def _check_size(self) -> None:
        limit = self._receiver.video_limit if self.file is not None else self._receiver.limit
        if self.size > limit:
            raise PayloadTooLarge(f"the body has more than {limit} bytes")

    async def flush(self, least: int = _PIECE) -> None:
        """Write buffered bytes to the file if there are enough to be worth a hop to a thread."""
        if self.file is not None and sum(map(len, self._pieces)) >= least:
            pieces, self._pieces = self._pieces, []
            await asyncio.to_thread(self._write, pieces)

    def _write(self, pieces: list[bytes]) -> None:
        assert self.file is not None  # noqa: S101  # see flush
        for piece in pieces:
            self.file.write(piece)
            self._digest.update(piece)

    def value(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    async def spooled(self) -> Spooled:
        await self.flush(0)
        assert self.file is not None  # noqa: S101  # asked of videos only
        await asyncio.to_thread(self.file.flush)
        return Spooled(self.file, self.size, self._digest.hexdigest(), self.filename)


class _Receiver:
    """Takes one request's body."""

    def __init__(
        self, request: Request, settings: Settings, open_file: OpenFile | None, *, videos: bool
    ) -> None:
        self.limit = settings.max_body_bytes
        self.video_limit = settings.video_max_bytes if videos else 0
        self._videos = videos
        self._declared = headers_of(request.scope).get(b"content-type", b"").startswith(b"video/")
        self._open_file = open_file or (lambda: _anonymous(settings))
        self._parts: list[_Part] = []
        self.has_video = False

    def is_video(self, head: bytes) -> bool:
        """Detect a video by content. A body that is neither but announced as a video gets the video's own error."""
        if is_picture(head):
            return False
        try:
            sniff_container(head[:_SNIFF_BYTES])
        except GatewayError:
            if self._declared:
                raise
            return False
        return True

    def open_video(self) -> BinaryIO:
        if self.has_video:
            raise InvalidParameter("send one video per request")
        self.has_video = True
        return self._open_file()

    def part(self, name: str, filename: str | None = None) -> _Part:
        part = _Part(self, filename, may_be_video=self._videos and name == "file")
        self._parts.append(part)
        return part

    def check(self, taken: int) -> None:
        """Count what is no part's content too, such as a preamble without end.

        Raises:
            PayloadTooLarge: far more bytes than the content may have.
        """
        limit = self.video_limit if self.has_video else self.limit
        if taken > limit + _FORM_BYTES:
            raise PayloadTooLarge(f"the body has more than {limit} bytes")

    async def flush(self) -> None:
        """Flush the current part, the only one with buffered bytes; the memory of all others is counted together."""
        for part in self._parts:
            await part.flush()
        if sum(part.size for part in self._parts if part.file is None) > self.limit:
            raise PayloadTooLarge(f"the body has more than {self.limit} bytes")

    def abandon(self) -> None:
        """Discard everything that was received."""
        for part in self._parts:
            if part.file is not None:
                with contextlib.suppress(OSError):  # what is buffered finds no room either
                    part.file.close()
                if isinstance(part.file.name, str):  # an anonymous file's is its descriptor
                    Path(part.file.name).unlink(missing_ok=True)


def _anonymous(settings: Settings) -> BinaryIO:
    """Open a file without a name; the kernel removes it with its last descriptor, even after a crash."""
    folder = settings.spool_folder
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder)


async def read_upload(
    request: Request,
    settings: Settings,
    deadline: Deadline,
    video_deadline: Deadline | None = None,
    most: Mapping[str, int] | None = None,
    open_file: OpenFile | None = None,
    fields: Collection[str] = (),
    whole: bytes | None = None,
) -> Upload:
    """Read the body, decoded, and count it while it comes.

    Args:
        request: raw, or a form with the parts of `most` and the fields of `fields`.
        settings: the limits.
        deadline: for what isn't a video.
        video_deadline: once it is one (default: there are no videos here).
        most: which parts there may be, and how many of each (default: `file`, as often as the settings allow).
        open_file: makes the file that a video goes to (default: one without a name).
        fields: names of the fields that a form may have.
        whole: the raw body, where it has been read already.

    Raises:
        PayloadTooLarge: more bytes than the kind of content may have, or too many parts.
        DeadlineExceeded: the sender was too slow (stage `receive`).
        InvalidParameter: damaged data, a damaged form, unknown parts, or more than one video.
        UnsupportedMediaType: it is said to be a video and is none that is read; an unknown Content-Encoding.
        VideosUnavailable: the video can't be written.
    """
    most = most or {"file": settings.max_parts}
    receiver = _Receiver(request, settings, open_file, videos=video_deadline is not None)
    check_announced(request, max(receiver.limit, receiver.video_limit))
    try:
        if whole is not None:
            return await _read_whole(whole, receiver, video_deadline)
        boundary = boundary_of(request)
        if boundary is None:
            return await _read_raw(request, receiver, deadline, video_deadline)
        reader = FormReader(boundary, most, receiver.part, fields)
        await _receive(request, receiver, reader.feed, deadline, video_deadline)
        return await _upload(reader.finish(), form=True, fields=reader.fields())
    except OSError as error:
        receiver.abandon()
        raise VideosUnavailable(
            f"the video can't be kept: {error.strerror or error}", retry_after=10
        ) from error
    except BaseException:
        receiver.abandon()
        raise


async def _read_raw(
    request: Request, receiver: _Receiver, deadline: Deadline, video_deadline: Deadline | None
) -> Upload:
    if not comes_whole(headers_of(request.scope), receiver.limit):
        body = receiver.part("file")
        await _receive(request, receiver, body.write, deadline, video_deadline)
        return await _upload({"file": [body]}, form=False)
    return await _read_whole(await read_body(request, receiver.limit, deadline), receiver, video_deadline)


async def _read_whole(whole: bytes, receiver: _Receiver, video_deadline: Deadline | None) -> Upload:
    if video_deadline is None or is_picture(whole):
        return Upload(None, {"file": [whole]}, form=False)
    body = receiver.part("file")
    body.write(whole)
    return await _upload({"file": [body]}, form=False)


async def _receive(
    request: Request,
    receiver: _Receiver,
    feed: Callable[[bytes], None],
    deadline: Deadline,
    video_deadline: Deadline | None,
) -> None:
    loop = asyncio.get_running_loop()
    most, taken = max(receiver.limit, receiver.video_limit), 0
    with receiving():
        async with asyncio.timeout(deadline.remaining()) as limit:
            async for chunk in chunks_of(request, most):
                taken += len(chunk)
                feed(chunk)
                receiver.check(taken)
                if receiver.has_video and video_deadline is not None:
                    limit.reschedule(loop.time() + video_deadline.remaining())
                await receiver.flush()


async def _upload(
    parts: Mapping[str, list[_Part]], *, form: bool, fields: Mapping[str, list[str]] | None = None
) -> Upload:
    for part in parts.get("file", ()):
        part.decide()
    videos = [part for part in parts.get("file", ()) if part.file is not None]
    memory = {name: [part.value() for part in found if part.file is None] for name, found in parts.items()}
    if videos and memory["file"]:
        raise InvalidParameter("send either pictures or one video, not both")
    names = tuple(part.filename for part in parts.get("file", ()) if part.file is None)
    return Upload(await videos[0].spooled() if videos else None, memory, form, fields or {}, names)


class _Admitted(io.BufferedRandom):
    """A file that asks before it grows by another piece."""

    def __init__(self, path: str, admit: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "x+"))
        self._admit = admit
        self._left = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]  # the pieces of a body are bytes
        length = len(data)
        if length > self._left:
            self._left = max(_PIECE, length)
            self._admit(length)
        self._left -= length
        return super().write(data)


def named_file(folder: Path, admit: Callable[[int], None]) -> BinaryIO:
    """A file with a name of ours in `folder`, for a video that is to be kept; the caller renames or removes it.

    `admit` is called with a number of bytes about once per MB that is written, and raises where there may be no more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return _Admitted(str(folder / f"{uuid.uuid4().hex}.upload"), admit)
