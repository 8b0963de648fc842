"""Query parameters of `GET /v1/videos`, and its cursors.

A cursor is a position in the order of the list, not an offset, so jobs that are added or deleted shift no page.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.api.request.frame_query import words_of
from app.errors import InvalidCursor
from app.state.jobs import Position

_VERSION = "1"
_CURSOR = re.compile(r"([0-9a-fx.p+-]{1,40})/([0-9a-f]{32})")
_LONGEST = 200
State = Literal["fetching", "queued", "running", "done", "failed"]


def _split(given: Any) -> Any:
    words = given if isinstance(given, list) else [given]
    return words_of(words) if all(isinstance(word, str) for word in words) else given


class ListQuery(BaseModel):
    """Query parameters of `GET /v1/videos`."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="Most videos on a page, newest first.")
    after: str | None = Field(
        None, max_length=_LONGEST, description="`next` of the page before; default: the first page."
    )
    state: Annotated[list[State], BeforeValidator(_split)] = Field(
        [],
        description="Only jobs in these states, repeated or separated by commas. `fetching` are those of `queued` "
        "whose video is still being fetched.",
        examples=[["queued", "running"]],
    )

    def position(self) -> Position | None:
        """Return the position after which the page begins; None: it is the first.

        Raises:
            InvalidCursor: `after` is none of this service's.
        """
        return None if self.after is None else position_of(self.after)

    def url_after(self, cursor: str) -> str:
        """Return the URL of the page after this one."""
        asked = [("limit", str(self.limit)), *(("state", state) for state in self.state), ("after", cursor)]
        return f"/v1/videos?{urlencode(asked)}"


def cursor_of(position: Position) -> str:
    """Return a position as a word for URLs."""
    text = f"{_VERSION}/{position.created.hex()}/{position.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def position_of(cursor: str) -> Position:
    """Return the position of a cursor.

    Raises:
        InvalidCursor: it isn't one that `cursor_of` makes.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode(
            "ascii"
        )
        version, _, rest = text.partition("/")
        found = _CURSOR.fullmatch(rest) if version == _VERSION else None
        created = float.fromhex(found[1]) if found else math.nan
    except (binascii.Error, ValueError, OverflowError):
        found, created = None, math.nan
    if found is None or not math.isfinite(created):
        raise InvalidCursor(f"after: {cursor[:_LONGEST]!r} is no cursor of this list")
    return Position(created, found[2])
