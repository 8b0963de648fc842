"""Frames in memory that the decoder's process writes and the gateway reads: slots that are used again and again."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import threading
from collections.abc import Callable
from typing import IO

import numpy as np
from numpy.typing import NDArray

RGB = 3


class VideoFrame:
    """One sampled frame of a video. Who gets it holds it, and releases it once; `hold` adds a holder.

    `index`: its number in the order of presentation, from 0, counted over all frames that the stream's decoder put out
    from the beginning. Frames that were never decoded can't be counted: after a jump to `start_s` (from 2 s on) it is
    counted from the number that the first frame's time gives at the stream's average rate, and with `keyframes` each is
    so numbered. At a constant frame rate that is the same; at a variable one it is near, and still never twice.
    `time_s`: when it is shown, in seconds from the stream's first frame.
    `decode_s`: seconds that it took until it was RGB, with those before it that weren't sampled.
    `squares`: pixels that were made of it and are needed once more, by size and fit; forgotten with the frame.
    """

    __slots__ = ("_free", "_holders", "_lock", "_rgb", "decode_s", "index", "squares", "time_s")

    def __init__(
        self,
        index: int,
        time_s: float,
        rgb: NDArray[np.uint8],
        free: Callable[[], None],
        decode_s: float = 0.0,
    ) -> None:
        self.index = index
        self.time_s = time_s
        self.decode_s = decode_s
        self.squares: dict[object, NDArray[np.uint8]] = {}
        self._rgb: NDArray[np.uint8] | None = rgb
        self._free = free
        self._holders = 1
        self._lock = threading.Lock()

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """Pixels as shown, `[height, width, 3]` uint8 RGB, C-contiguous and read-only: a view into a slot that is used
        again after the last `release`. Copy what has to stay, or be drawn on.

        Raises:
            ValueError: nobody holds the frame any more.
        """
        if self._rgb is None:
            raise ValueError("the frame was released; its pixels are gone")
        return self._rgb

    def hold(self) -> VideoFrame:
        """Keep the pixels for one more holder, who releases the frame once. Thread-safe.

        Raises:
            ValueError: nobody holds the frame any more.
        """
        with self._lock:
            if not self._holders:
                raise ValueError("the frame was released; its pixels are gone")
            self._holders += 1
        return self

    def release(self) -> None:
        """Release the frame; its slot is reused after the last release. Thread-safe; an extra call does nothing."""
        with self._lock:
            if not self._holders:
                return
            self._holders -= 1
            if self._holders:
                return
            self._rgb = None
        self.squares.clear()
        self._free()


class Ring:
    """Slots of one size in a file without a name, which leaves nothing behind however its processes end.

    When frames grow, a larger ring begins behind the old one in the same file, so frames that are still held stay as
    they are. It is at least twice as large, so the file stays under twice what the largest frames need.
    """

    def __init__(self, slots: int) -> None:
        if slots < 1:
            raise ValueError("a video needs at least one slot")
        self.slots = slots
        self.slot_bytes = 0
        self.generation = 0
        self.free: set[int] = set()
        self._file = _nameless()
        self.fd = self._file.fileno()
        self._end = 0
        self._map: mmap.mmap | None = None

    def grow(self, need: int, most: int) -> int:
        """Make slots of at least `need` bytes, and where there were some twice as large up to `most`; all are free.

        Returns:
            Where the ring begins in the file.

        Raises:
            OSError: there is no memory.
        """
        size = _pages(max(need, min(2 * self.slot_bytes, most)))
        offset, length = self._end, size * self.slots
        os.ftruncate(self.fd, offset + length)
        self._map = mmap.mmap(self.fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset)
        self._end = offset + length
        self.slot_bytes = size
        self.generation += 1
        self.free = set(range(self.slots))
        return offset

    def view(self, slot: int, height: int, width: int) -> NDArray[np.uint8]:
        """`[height, width, 3]` uint8 at the beginning of a slot, read-only."""
        if self._map is None or min(height, width) < 1 or height * width * RGB > self.slot_bytes:
            raise ValueError("the frame doesn't fit its slot")
        if slot not in self.free:
            raise ValueError("the slot isn't free")
        flat = np.frombuffer(self._map, np.uint8, height * width * RGB, slot * self.slot_bytes)
        return flat.reshape(height, width, RGB)

    def close(self) -> None:
        """Close the file; its memory is freed with the last held frame."""
        self._file.close()
        self._map = None


def _nameless() -> IO[bytes]:
    """A file that goes with its last descriptor: in memory, or where the system has no such files a temporary one."""
    if not hasattr(os, "memfd_create"):  # not Linux
        return tempfile.TemporaryFile(buffering=0)
    file = os.fdopen(
        os.memfd_create("video-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "rb", buffering=0
    )
    # The decoder must not be able to take memory away under the readers.
    fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return file


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
