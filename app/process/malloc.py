"""Settings of the C library's allocator: memory is not returned after every request.

A depth map, a decoded frame, an answer are megabytes that live for milliseconds. By default glibc maps such blocks from
the kernel and unmaps them again, and every page of them is zeroed and faulted in again: 500 faults per depth request,
half of its CPU time. Blocks up to 32 MiB (the most that glibc allows) now come from arenas that keep their pages.
"""

from __future__ import annotations

import ctypes

# mallopt(3). Two arenas for all threads, since each arena keeps memory of its own.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_MIB = 1 << 20
_WISHES = (
    (_M_MMAP_THRESHOLD, 32 * _MIB),
    (_M_TRIM_THRESHOLD, 48 * _MIB),
    (_M_TOP_PAD, _MIB),
    (_M_ARENA_MAX, 2),
)


def give_back() -> bool:
    """Return unused pages to the kernel; False if the C library isn't glibc.

    What large pictures took would otherwise stay for good. A millisecond or two, without Python's lock.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and trim(0) in (0, 1)


def keep_pages() -> bool:
    """Configure the C library for the life of the process; return True if it is glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in _WISHES)
