"""Times as stores keep them, in the text that answers and messages give."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload


@overload
def moment_text(seconds: float) -> str: ...
@overload
def moment_text(seconds: float | None) -> str | None: ...
def moment_text(seconds: float | None) -> str | None:
    """Return seconds since 1970 as ISO 8601 in UTC, to the millisecond; None for None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
