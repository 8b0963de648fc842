"""Growth of ONNX Runtime's arena over a sequence of allocations, with the strategy `kSameAsRequested`.

The rules are those of its `BFCArena`: sizes are rounded up to 256 bytes; the smallest free chunk that is large enough
is taken, and split if at least half of it or 128 MiB would be left; where none is large enough, the arena grows by the
request. Free neighbours of one growth become one chunk. Nothing is given back.
"""

from __future__ import annotations

from dataclasses import dataclass

_ALIGNMENT = 256
_MOST_DEAD = 128 << 20


@dataclass(slots=True)
class _Chunk:
    size: int
    used: bool


Place = tuple[int, _Chunk]


def rounded(size: int) -> int:
    """Bytes that an allocation takes."""
    return max(1, -(-size // _ALIGNMENT)) * _ALIGNMENT


class Arena:
    """An empty arena; `total` is what it has taken from the system."""

    def __init__(self) -> None:
        self._regions: list[list[_Chunk]] = []
        self.total = 0

    def allocate(self, size: int) -> Place:
        """Take a chunk; the returned place is for `free`."""
        size = rounded(size)
        fitting = [
            (chunk.size, region, chunk)
            for region, chunks in enumerate(self._regions)
            for chunk in chunks
            if not chunk.used and chunk.size >= size
        ]
        if not fitting:
            self.total += size
            self._regions.append([_Chunk(size, used=True)])
            return len(self._regions) - 1, self._regions[-1][0]
        _, region, chunk = min(fitting, key=lambda found: found[:2])
        chunk.used = True
        left = chunk.size - size
        if chunk.size >= 2 * size or left >= _MOST_DEAD:
            chunks = self._regions[region]
            chunk.size = size
            chunks.insert(_index(chunks, chunk) + 1, _Chunk(left, used=False))
        return region, chunk

    def free(self, place: Place) -> None:
        """Give a chunk back to the arena."""
        region, chunk = place
        chunk.used = False
        merged: list[_Chunk] = []
        for one in self._regions[region]:
            if merged and not merged[-1].used and not one.used:
                merged[-1].size += one.size
            else:
                merged.append(one)
        self._regions[region] = merged


def _index(chunks: list[_Chunk], wanted: _Chunk) -> int:
    return next(place for place, chunk in enumerate(chunks) if chunk is wanted)
