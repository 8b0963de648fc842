"""Pictures that come as text: base64, data URIs, and JSON or an urlencoded form that holds them.

The content decides the type, since `curl -d` and `requests.post(data=…)` announce any body as an urlencoded form.
"""

from __future__ import annotations

import asyncio
import binascii
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import unquote, unquote_plus, unquote_to_bytes

from fastapi import Request

from app.api.request.headers import headers_of
from app.api.request.uploads import Upload
from app.documents import clipped, read_json
from app.errors import InvalidImage, InvalidParameter, PayloadTooLarge, UnsupportedMediaType
from app.hints import did_you_mean
from app.media.image import is_picture

T = TypeVar("T")

# Parts that are pictures, and names that JSON and urlencoded forms have for parts.
_PICTURES = ("file", "frame0", "frame1")
_ALIASES = {"image": "file", "prompts": "prompt"}
_INLINE = 1 << 16  # longer texts are decoded on a thread
_MOST_VALUES = 100_000  # marks in JSON: it holds pictures and prompts, not a million keys
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_DATA_URI = re.compile(rb"data:[^,]{0,200},", re.IGNORECASE)
_WHITE = b" \t\r\n\v\f\0"
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_PLAIN = bytes.maketrans(b"-_", b"+/")
_HINT = (
    'Send the picture itself: curl --data-binary @picture.jpg URL; or JSON {"image": "<base64 or data URI>"}.'
)


async def with_pictures(
    request: Request, upload: Upload, most: Mapping[str, int], fields: Collection[str]
) -> Upload:
    """Return the upload with its pictures decoded from text to bytes.

    Args:
        request: its content type tells an urlencoded form.
        upload: as it came, no video.
        most: the parts that the route takes, and how many of each.
        fields: the query parameters that JSON and forms may hold too.

    Raises:
        UnsupportedMediaType: JSON without a picture.
        InvalidImage: what should be a picture is no base64.
        InvalidParameter: a member of the JSON that is unknown, or of the wrong type.
        PayloadTooLarge: more pictures than the route takes, or too many values.
    """
    if upload.form:
        texts = {name: upload.parts.get(name, ()) for name in _PICTURES}
        if not any(_may_be_text(one) for found in texts.values() for one in found):
            return upload
        nbytes = sum(len(one) for found in texts.values() for one in found)
        return await _run(nbytes, lambda: _decoded_parts(upload))
    (body,) = upload.parts["file"]
    if not _may_be_text(body):
        return upload
    kind = (headers_of(request.scope).get(b"content-type", b"")).partition(b";")[0].strip().lower()
    return await _run(len(body), lambda: _decoded_body(body, kind, upload, most, fields))


async def _run(nbytes: int, work: Callable[[], T]) -> T:
    return work() if nbytes <= _INLINE else await asyncio.to_thread(work)


def _may_be_text(body: bytes) -> bool:
    """Return False for every picture, and for most bodies that are neither picture nor text."""
    head = body[:64]
    return bool(head) and (head.isascii() or head.startswith(_BOMS)) and not is_picture(head)


def _decoded_parts(upload: Upload) -> Upload:
    parts = {
        name: [picture_of(one) for one in found] if name in _PICTURES else found
        for name, found in upload.parts.items()
    }
    return replace(upload, parts=parts)


def _decoded_body(
    body: bytes, kind: bytes, upload: Upload, most: Mapping[str, int], fields: Collection[str]
) -> Upload:
    if body.startswith(_BOMS):
        body = json_text(body)
    if body[:64].lstrip(_WHITE).startswith((b"{", b"[", b'"')):
        return _of_members(_members(body), most, fields)
    if kind == b"application/x-www-form-urlencoded" and _first_name(body) in {*most, *fields}:
        return _of_members(_urlencoded(body), most, fields)
    picture = picture_of(body)
    if kind == b"application/json" and picture is body:
        return _of_members(_members(body), most, fields)
    return replace(upload, parts={"file": [picture]})


def picture_of(body: bytes) -> bytes:
    """Decode a picture from base64 or a data URI; return any other body unchanged."""
    if not _may_be_text(body):
        return body
    decoded = _from_base64(body)
    if decoded is not None and (is_picture(decoded[:64]) or _DATA_URI.match(body.lstrip(_WHITE))):
        return decoded
    return body


def _from_base64(text: bytes) -> bytes | None:
    """Decode base64 of either alphabet, or a data URI; white space and missing padding are tolerated."""
    text = text.removeprefix(_BOMS[0]).strip(_WHITE)
    uri = _DATA_URI.match(text)
    if uri is not None:
        text = text[uri.end() :]
        if b";base64" not in uri.group().lower().replace(b" ", b""):
            return unquote_to_bytes(text)
        if b"%" in text:
            text = unquote_to_bytes(text)
    text = text.translate(_PLAIN, _WHITE).rstrip(b"=")
    if not text or len(text) % 4 == 1 or text.translate(None, _ALPHABET):
        return None
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4))


def json_text(body: bytes) -> bytes:
    """JSON or other ASCII text as UTF-8 without a byte order mark, from whichever UTF it came in.

    Raises:
        InvalidParameter: it is none of them.
    """
    encoding = json.detect_encoding(body)  # as RFC 4627, section 3, tells them apart
    if encoding == "utf-8":
        return body
    try:
        return body.decode(encoding).encode()
    except UnicodeError as error:
        raise InvalidParameter(f"the body is no text in {encoding.upper()}") from error


def _members(body: bytes) -> dict[str, Any]:
    text = json_text(body)
    if sum(text.count(mark) for mark in (b'"', b",", b"[", b"{")) > _MOST_VALUES:
        raise PayloadTooLarge(f"the JSON has more than {_MOST_VALUES} values", hint=_HINT)
    try:
        document = read_json(text, _MOST_VALUES)
    except InvalidParameter as error:
        raise UnsupportedMediaType(f"the JSON can't be read: {error.detail}", hint=_HINT) from error
    if isinstance(document, str):
        document = {"image": document}
    if not isinstance(document, dict):
        raise UnsupportedMediaType("the JSON is no object with a picture", hint=_HINT)
    return document


def _first_name(body: bytes) -> str:
    name, equals, _ = body[:64].partition(b"=")
    return _ALIASES.get(name.decode("latin-1"), name.decode("latin-1")) if equals else ""


def _urlencoded(body: bytes) -> dict[str, Any]:
    pairs = body.decode("utf-8", "replace").split("&")
    if len(pairs) > 1000:
        raise PayloadTooLarge("the form has too many fields", hint=_HINT)
    found: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        picture = (
            _ALIASES.get(name, name) in _PICTURES
        )  # keep an unquoted plus: in base64 it is a digit, not a space
        found.setdefault(name, []).append(unquote(value) if picture else unquote_plus(value))
    return found


def _of_members(members: Mapping[str, Any], most: Mapping[str, int], fields: Collection[str]) -> Upload:
    """Build the parts and fields of a form from the members of a JSON object."""
    parts: dict[str, list[bytes]] = {name: [] for name in most}
    found: dict[str, list[str]] = {}
    if not any(_ALIASES.get(name, name) in _PICTURES for name in members):
        wanted = " or ".join(repr(name) for name in _json_names(most))
        raise UnsupportedMediaType(f"the JSON has no picture under {wanted}", hint=_HINT)
    for name, value in members.items():
        values = [one for one in (value if isinstance(value, list) else [value]) if one is not None]
        part = _ALIASES.get(name, name)
        if part in most:
            parts[part] += [_part(name, one, picture=part in _PICTURES) for one in values]
            if len(parts[part]) > most[part]:
                raise PayloadTooLarge(f"more than {most[part]} values under {name!r}")
        elif name in fields:
            found[name] = [_field(name, one) for one in values]
        else:
            near = did_you_mean(name, [*_json_names(most), *fields])
            raise InvalidParameter(f"unknown member {clipped(name)!r} of the JSON{near}")
    return Upload(None, parts, form=True, fields=found)


def _json_names(most: Mapping[str, int]) -> list[str]:
    return ["image" if name == "file" else name for name in most if name in _PICTURES]


def _part(name: str, value: Any, *, picture: bool) -> bytes:
    if not isinstance(value, str):
        raise InvalidParameter(f"{name} must be text, not {type(value).__name__}")
    text = value.encode("utf-8", "replace")
    if not picture:
        return text
    if text[:8].lower().startswith((b"http://", b"https://")):
        raise InvalidImage(f"{name} is an address; the gateway fetches none", hint=_HINT)
    decoded = _from_base64(text)
    if decoded is None:
        raise InvalidImage(f"{name} is neither base64 nor a data URI", hint=_HINT)
    return decoded


def _field(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise InvalidParameter(f"{name} must be text, a number or a list of them")
