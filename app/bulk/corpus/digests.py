"""Names that were seen, as numbers: tens of thousands of them take little memory."""

from __future__ import annotations

import hashlib
from array import array

_FIRST_SLOTS = 1024


def digest(name: str) -> int:
    """Return a number of 64 bits that is the same in every process, and not 0."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") or 1


class Digests:
    """Set of digests in a table with open addressing: 16 to 32 bytes each, where Python's own set takes about 80."""

    def __init__(self) -> None:
        self._slots = _empty(_FIRST_SLOTS)
        self._count = 0

    def add(self, value: int) -> bool:
        """Add a digest; return False if it was there before."""
        at = self._slot(value)
        if self._slots[at] == value:
            return False
        self._slots[at] = value
        self._count += 1
        if self._count * 2 > len(self._slots):
            self._grow()
        return True

    def _slot(self, value: int) -> int:
        """Return the slot of a digest, or the empty one that it would take."""
        slots = self._slots
        at = value % len(slots)
        while slots[at] not in (0, value):
            at = (at + 1) % len(slots)
        return at

    def _grow(self) -> None:
        before, self._slots = self._slots, _empty(2 * len(self._slots))
        for value in filter(None, before):
            self._slots[self._slot(value)] = value


def _empty(slots: int) -> array[int]:
    return array("Q", bytes(8 * slots))
