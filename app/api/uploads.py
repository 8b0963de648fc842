"""Bodies that may be videos: what begins like one goes to a file as it comes, everything else stays in memory."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastapi import Request

from app.api.connections import WHOLE_BYTES, announced, header_of
from app.api.multipart import FormReader, boundary_of
from app.api.requests import check_announced, read_body, receiving
from app.errors import GatewayError, InvalidParameter, PayloadTooLarge, VideosUnavailable
from app.pipelines.base import Deadline
from app.pipelines.stream import is_picture, sniff_container
from app.settings import Settings

_SNIFF_BYTES = 4096
_PIECE = 1 << 20
OpenFile = Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Spooled:
    """A video in a file of its own: its length in bytes and its SHA-256 in hex. Close the file when done."""

    file: BinaryIO
    nbytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Upload:
    """What came: a video, or other parts in memory, by name. A raw body is the part `file`."""

    video: Spooled | None
    parts: Mapping[str, list[bytes]]
    multipart: bool

    @property
    def frames(self) -> list[bytes]:
        return self.parts["file"]


class _Part:
    """One body or part, in memory until its first bytes say that it is a video."""

    def __init__(self, receiver: _Receiver, *, may_be_video: bool) -> None:
        self._receiver = receiver
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
        """Look at the first bytes; which limit holds is known then."""
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
        """Write to the file what has come since, if that is enough to be worth a hop."""
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
        return Spooled(self.file, self.size, self._digest.hexdigest())


class _Receiver:
    """Takes one request's body."""

    def __init__(self, request: Request, settings: Settings, open_file: OpenFile | None) -> None:
        self.limit = settings.max_body_bytes
        self.video_limit = settings.video_max_bytes
        self._declared = (header_of(request.scope["headers"], b"content-type") or b"").startswith(b"video/")
        self._open_file = open_file or (lambda: _anonymous(settings))
        self._parts: list[_Part] = []
        self.has_video = False

    def is_video(self, head: bytes) -> bool:
        """By content; what is neither, and is said to be a video, gets the video's own error."""
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
            raise InvalidParameter("send one video a request")
        self.has_video = True
        return self._open_file()

    def part(self, name: str) -> _Part:
        part = _Part(self, may_be_video=name == "file")
        self._parts.append(part)
        return part

    async def flush(self) -> None:
        """At most the part at hand has something to flush; the memory of all others is counted together."""
        for part in self._parts:
            await part.flush()
        if sum(part.size for part in self._parts if part.file is None) > self.limit:
            raise PayloadTooLarge(f"the body has more than {self.limit} bytes")

    def abandon(self) -> None:
        """Nothing of what came is kept."""
        for part in self._parts:
            if part.file is not None:
                part.file.close()
                if isinstance(part.file.name, str):  # an anonymous file's is its descriptor
                    Path(part.file.name).unlink(missing_ok=True)


def _anonymous(settings: Settings) -> BinaryIO:
    """A file without a name: it goes with its last descriptor, whatever happens to this process."""
    folder = settings.spool_folder
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder)


async def read_upload(
    request: Request,
    settings: Settings,
    deadline: Deadline,
    video_deadline: Deadline,
    most: Mapping[str, int] | None = None,
    open_file: OpenFile | None = None,
) -> Upload:
    """The body, counted while it comes.

    Args:
        request: raw, or multipart with the parts of `most`.
        settings: the limits.
        deadline: for what isn't a video.
        video_deadline: once it is one.
        most: which parts there may be, and how many of each (default: `file`, as often as the settings allow).
        open_file: makes the file that a video goes to (default: one without a name).

    Raises:
        PayloadTooLarge: more bytes than the kind of content may have, or too many parts.
        DeadlineExceeded: the sender was too slow (stage `receive`).
        InvalidParameter: a damaged form, unknown parts, or more than one video.
        UnsupportedMediaType: it is said to be a video and is none that is read.
        VideosUnavailable: the video can't be written.
    """
    most = most or {"file": settings.max_parts}
    receiver = _Receiver(request, settings, open_file)
    check_announced(request, max(receiver.limit, receiver.video_limit))
    try:
        boundary = boundary_of(request)
        if boundary is None:
            body = receiver.part("file")
            # A short one has come whole, or comes so, see `app.api.connections`.
            if announced(request.scope["headers"]) <= min(WHOLE_BYTES, receiver.limit):
                whole = await read_body(request, receiver.limit, deadline)
                if is_picture(whole):  # most bodies are, and need nothing of what follows
                    return Upload(None, {"file": [whole]}, multipart=False)
                body.write(whole)
            else:
                await _receive(request, receiver, body.write, deadline, video_deadline)
            parts = {"file": [body]}
        else:
            form = FormReader(boundary, most, receiver.part)
            await _receive(request, receiver, form.feed, deadline, video_deadline)
            parts = form.finish()
        return await _upload(parts, multipart=boundary is not None)
    except OSError as error:
        receiver.abandon()
        raise VideosUnavailable(
            f"the video can't be kept: {error.strerror or error}", retry_after=10
        ) from error
    except BaseException:
        receiver.abandon()
        raise


async def _receive(
    request: Request,
    receiver: _Receiver,
    feed: Callable[[bytes], None],
    deadline: Deadline,
    video_deadline: Deadline,
) -> None:
    loop = asyncio.get_running_loop()
    with receiving():
        async with asyncio.timeout(deadline.remaining()) as limit:
            async for chunk in request.stream():
                feed(chunk)
                if receiver.has_video:
                    limit.reschedule(loop.time() + video_deadline.remaining())
                await receiver.flush()


async def _upload(parts: Mapping[str, list[_Part]], *, multipart: bool) -> Upload:
    for part in parts.get("file", ()):
        part.decide()
    videos = [part for part in parts.get("file", ()) if part.file is not None]
    memory = {name: [part.value() for part in found if part.file is None] for name, found in parts.items()}
    if videos and memory["file"]:
        raise InvalidParameter("send either pictures or one video, not both")
    return Upload(await videos[0].spooled() if videos else None, memory, multipart)


def named_file(folder: Path) -> BinaryIO:
    """A file with a name of ours in `folder`, for a video that is to be kept; the caller renames or removes it."""
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.NamedTemporaryFile(dir=folder, suffix=".upload", delete=False)  # type: ignore[return-value]  # a real file on this platform
