"""Submissions of `POST /v1/videos`: parameters, `Idempotency-Key`, and the digest by which retries are compared."""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import asdict, dataclass

from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Scope

from app.api.request.file_names import clean_name, file_name
from app.api.request.uploads import Upload
from app.errors import InvalidParameter
from app.outgoing import LONGEST_URL
from app.videos import profile_documents

_NAME_BYTES = 1000
_HEADER = b"idempotency-key"
LONGEST_KEY = 255
# draft-ietf-httpapi-idempotency-key-header: a string of RFC 8941. Many clients send the bare word.
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_BARE = re.compile(r"[!#$%&'()*+\-./0-9:<=>?@A-Z\[\]^_`a-z{|}~]+")


class VideoQuery(BaseModel):
    """Query parameters of `POST /v1/videos`; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid")

    profile: str | None = Field(
        None,
        description="Name of one of the service's profiles; a multipart part `profile` takes a name or a YAML profile.",
        examples=["baseline_gpu_local"],
    )
    name: str | None = Field(None, max_length=200, description="Name of the video in its manifest.")
    callback_url: str | None = Field(
        None,
        max_length=LONGEST_URL,
        description="URL that receives a signed POST when the job is over; its host must be in GATEWAY_WEBHOOK_HOSTS. "
        "A multipart part `callback_url` is the same.",
        examples=["https://hooks.example.com/videos"],
    )


@dataclass(frozen=True, slots=True)
class Submission:
    """A new job as the caller asks for it: the SHA-256 of the video in hex, or the URL that it is fetched from.

    `profile` is a name or a text; None: there is none.
    """

    sha256: str | None
    source: str | None
    profile: str | None
    name: str
    callback_url: str | None

    def digest(self) -> str:
        """Return the SHA-256, in hex, of all that a retry must repeat."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def submission_of(
    upload: Upload, query: VideoQuery, file: str | None, sha256: str | None = None, source: str | None = None
) -> Submission:
    """Return what a form, or the parts of a JSON body, and the query ask for; `file` is the name of the video's file.

    Raises:
        InvalidParameter: a part that is too long or no UTF-8, or one that is given twice.
    """
    profile = _once(upload, "profile", profile_documents.MAX_BYTES, query.profile)
    callback_url = _once(upload, "callback_url", LONGEST_URL, query.callback_url)
    name = clean_name(_once(upload, "name", _NAME_BYTES, query.name) or "") or file_name(file) or "video"
    return Submission(sha256, source, profile or None, name, callback_url)


def _once(upload: Upload, name: str, most_bytes: int, in_query: str | None) -> str | None:
    """Return a part of the body, or else the parameter of the query."""
    for part in upload.parts.get(name, ()):
        if len(part) > most_bytes:
            raise InvalidParameter(f"the part {name!r} has {len(part)} bytes; the limit is {most_bytes}")
        if in_query is not None:
            raise InvalidParameter(f"{name}: given in the query and in the body; send it once")
        try:
            return part.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise InvalidParameter(f"the part {name!r} is not UTF-8") from error
    return in_query


def key_of(scope: Scope) -> str | None:
    """Return the `Idempotency-Key` of a request: 1 to 255 printable ASCII characters; None: it has none.

    Raises:
        InvalidParameter: several, or one that is no key.
    """
    values = [value for name, value in scope["headers"] if name == _HEADER]
    if not values:
        return None
    if len(values) > 1:
        raise InvalidParameter("the request has several Idempotency-Key headers; send one")
    text = values[0].decode("latin-1").strip()
    quoted = _QUOTED.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    if not (quoted or _BARE.fullmatch(text)) or not 1 <= len(key) <= LONGEST_KEY:
        raise InvalidParameter(
            f"Idempotency-Key: send 1 to {LONGEST_KEY} printable ASCII characters in double quotes, such as a UUID"
        )
    return key


class Discarded(io.BufferedRandom):
    """A file for the video of a retry, of which only the digest is needed."""

    def __init__(self) -> None:
        super().__init__(io.FileIO("/dev/null", "r+"))

    @property
    def name(self) -> int:  # as of a file without a name: there is nothing to remove
        return -1
