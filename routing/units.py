"""Amounts of memory as people write them: `6GiB`, `6144MiB`, `6GB`."""

from __future__ import annotations

import re

_BINARY, _DECIMAL = 1024, 1000
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?\s*", re.IGNORECASE | re.ASCII)
_FORM = "is a number with a unit, such as 6GiB, 6144MiB or 6GB"


def parse_size(text: str) -> int:
    """Return the bytes of an amount with a unit: `KiB` to `TiB` (1024), `KB` to `TB` (1000); the `B` may be missing.

    Raises:
        ValueError: it is no such amount, or it is 0.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r}: memory {_FORM}")
    number, unit, binary = found.groups()
    size = int(float(number) * (_BINARY if binary else _DECIMAL) ** _POWERS[unit.upper()])
    if size <= 0:
        raise ValueError(f"{text[:40]!r}: memory {_FORM}, above 0")
    return size


def format_size(size: int) -> str:
    """Return an amount in MiB, from 1 GiB on in GiB: `812 MiB`, `5.4 GiB`."""
    mebibytes = size / _BINARY**2
    if round(mebibytes) >= _BINARY:
        return f"{mebibytes / _BINARY:.1f} GiB"
    return f"{mebibytes:.0f} MiB" if mebibytes >= 10 or size == 0 else f"{mebibytes:.1f} MiB"
