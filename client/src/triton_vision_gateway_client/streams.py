"""Answers to videos: iterators of frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from triton_vision_gateway_client.answers.videos import Frame, VideoSummary
from triton_vision_gateway_client.calls.base import Request
from triton_vision_gateway_client.errors import ConnectionFailed, StreamInterrupted
from triton_vision_gateway_client.lines import FrameReader
from triton_vision_gateway_client.transports.asynchronous import AsyncOpenStream, AsyncTransport
from triton_vision_gateway_client.transports.sync import OpenStream

T = TypeVar("T")
Parse = Callable[[Mapping[str, Any]], T]


class _Counted(Generic[T]):
    """The parts that both iterators share."""

    _reader: FrameReader[T] | None = None

    @property
    def received(self) -> int:
        """Number of frames that have come."""
        return 0 if self._reader is None else self._reader.frames

    @property
    def summary(self) -> VideoSummary | None:
        """The summary of the video, once all frames have come."""
        return None if self._reader is None else self._reader.summary


def _broken(reader: FrameReader[T], error: ConnectionFailed) -> None:
    """Raise StreamInterrupted, unless the answer was complete."""
    if reader.summary is None:
        raise StreamInterrupted(error.detail, reader.frames) from error


class VideoFrames(_Counted[T], Iterator[Frame[T]]):
    """Iterate for the frames of a video, as the service answers them.

    `close`, or leaving a `with` block, ends the connection, and with it the service's work.

    Raises:
        StreamInterrupted: the connection broke; `frames` says how many came.
        VideoIncomplete: the video itself broke off; raised after its last frame.
        DeadlineExceeded: the time for the call has passed.
    """

    def __init__(self, stream: OpenStream, parse: Parse[T]) -> None:
        self._stream = stream
        self._reader = FrameReader(parse, stream.headers.get("x-request-id"))
        self._frames = self._iterate(self._reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __next__(self) -> Frame[T]:
        return next(self._frames)

    def close(self) -> None:
        """Stop: no further frame comes."""
        self._frames.close()
        self._stream.close()

    def _iterate(self, reader: FrameReader[T]) -> Generator[Frame[T], None, None]:
        try:
            for chunk in self._stream.chunks():
                yield from reader.feed(chunk)
        except ConnectionFailed as error:
            _broken(reader, error)
        finally:
            self._stream.close()
        reader.finish()


class AsyncVideoFrames(_Counted[T], AsyncIterator[Frame[T]]):
    """As `VideoFrames`, for `async for`; the request is sent when the first frame is asked for.

    Use `async with` where the loop may end early: only then the connection ends at once.
    """

    def __init__(self, transport: AsyncTransport, make: Callable[[], Request], parse: Parse[T]) -> None:
        self._transport = transport
        self._make = make
        self._parse = parse
        self._stream: AsyncOpenStream | None = None
        self._frames: AsyncGenerator[Frame[T], None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def __anext__(self) -> Frame[T]:
        if self._closed:
            raise StopAsyncIteration
        frames = await self._begin()
        return await anext(frames)

    async def close(self) -> None:
        """Stop: no further frame comes."""
        self._closed = True
        if self._frames is not None:
            await self._frames.aclose()
        if self._stream is not None:
            await self._stream.close()

    async def _begin(self) -> AsyncGenerator[Frame[T], None]:
        if self._frames is None:
            request = await asyncio.to_thread(self._make)
            self._stream = await self._transport.open(request)
            self._reader = FrameReader(self._parse, self._stream.headers.get("x-request-id"))
            self._frames = self._iterate(self._stream, self._reader)
        return self._frames

    async def _iterate(
        self, stream: AsyncOpenStream, reader: FrameReader[T]
    ) -> AsyncGenerator[Frame[T], None]:
        try:
            async for chunk in stream.chunks():
                for frame in reader.feed(chunk):
                    yield frame
        except ConnectionFailed as error:
            _broken(reader, error)
        finally:
            await stream.close()
        reader.finish()
