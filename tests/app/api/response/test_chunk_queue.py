"""Pieces from a thread to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from support.waiting import PATIENCE_S, eventually_on_loop

from app.api.response.chunk_queue import ChunkQueue


def passed(pieces: Iterator[bytes], most: int = 4, *, slowly: bool = False) -> list[bytes]:
    """Take pieces until the end; slowly: each time as many wait as may, or all is there."""

    async def run() -> list[bytes]:
        loop = asyncio.get_running_loop()
        chunks = ChunkQueue(loop, most)
        filling = loop.run_in_executor(None, chunks.fill, pieces)
        taken = []
        while piece := await chunks.take():
            taken.append(piece)
            if slowly:
                await eventually_on_loop(lambda: filling.done() or len(chunks._pieces) == most)
        await filling
        return taken

    return asyncio.run(run())


def numbered(count: int, then: Callable[[], object] = lambda: None) -> Iterator[bytes]:
    """Lines with their numbers."""
    for number in range(count):
        yield b"%d\n" % number
    then()


@pytest.mark.parametrize("slowly", [False, True])
def test_everything_arrives_in_order(slowly: bool) -> None:
    """However slowly it is taken, and however little may wait."""
    assert b"".join(passed(numbered(40), 3, slowly=slowly)) == b"".join(numbered(40))


def test_what_waits_is_taken_at_once() -> None:
    """A slow reader gets several pieces as one, but never more than may wait."""
    taken = passed(numbered(40), 4, slowly=True)
    assert max(piece.count(b"\n") for piece in taken) == 4


def test_nothing_is_an_end_too() -> None:
    """A thread that has nothing to say ends it."""
    assert passed(numbered(0)) == []


def test_an_error_ends_it_after_what_came_before() -> None:
    """Pieces that were made are taken; then the error shows where the thread is awaited."""

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        passed(numbered(3, fail))


def test_who_waits_for_room_stops_when_it_is_closed() -> None:
    """The thread ends although nothing was ever taken."""

    async def run() -> bool:
        loop = asyncio.get_running_loop()
        chunks = ChunkQueue(loop, 2)
        full = threading.Event()

        def pieces() -> Iterator[bytes]:
            yield from numbered(2)
            full.set()
            yield from numbered(100)

        filling = loop.run_in_executor(None, chunks.fill, pieces())
        await asyncio.to_thread(full.wait, PATIENCE_S)
        chunks.close()
        await asyncio.wait_for(filling, PATIENCE_S)
        return True

    assert asyncio.run(run())
