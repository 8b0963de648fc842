"""The JSON body of `POST /v1/videos`: a video that the service fetches itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.request.json_body import parsed
from app.api.request.uploads import Upload
from app.errors import InvalidParameter, PayloadTooLarge
from app.outgoing import LONGEST_URL

_BLANKS = b"\xef\xbb\xbf \t\r\n"
_LIKE = '{"source": "https://… or s3://bucket/key", "profile": "…"}'


class SourceBody(BaseModel):
    """A video by its URL; `profile`, `name` and `callback_url` are those of the query and of forms."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str = Field(max_length=LONGEST_URL)
    profile: str | dict[str, Any] | None = None
    name: str | None = Field(None, max_length=200)
    callback_url: str | None = Field(None, max_length=LONGEST_URL)


def is_json(upload: Upload) -> bool:
    """Detect a JSON object by content: `curl -d` announces one as an urlencoded form."""
    if upload.form or upload.video is not None:
        return False
    (body,) = upload.parts["file"]
    return body[:64].lstrip(_BLANKS)[:1] == b"{"


def source_of(upload: Upload, most_bytes: int) -> tuple[str, Upload]:
    """Return the URL of a JSON body, and its other members as the parts that a form would have.

    Raises:
        InvalidParameter: it isn't as `SourceBody` describes it.
        PayloadTooLarge: more than `most_bytes`.
    """
    (body,) = upload.parts["file"]
    if len(body) > most_bytes:
        raise PayloadTooLarge(f"the body has {len(body)} bytes; the limit for JSON is {most_bytes}")
    asked = parsed(body, SourceBody, _LIKE)
    if not asked.source:
        raise InvalidParameter("source: a URL must not be empty")
    profile = json.dumps(asked.profile) if isinstance(asked.profile, dict) else asked.profile
    given = {"profile": profile, "name": asked.name, "callback_url": asked.callback_url}
    parts = {name: [text.encode("utf-8")] for name, text in given.items() if text is not None}
    return asked.source, replace(upload, parts=parts)
