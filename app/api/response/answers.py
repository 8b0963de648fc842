"""Writing answers: JSON, pictures, and the headers that say how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import Response

from app.pipelines.base import STAGES, Served, Timings

JSON = "application/json"
PNG = "image/png"
JPEG = "image/jpeg"
NPY = "application/x-npy"
FLO = "application/x-flo"


class WrittenJson(Response):
    """JSON that is written already, with status 200: its headers are bytes from the beginning."""

    media_type = JSON
    status_code = 200
    background = None

    def __init__(self, content: bytes, timings: Timings) -> None:
        self.body = content
        self.raw_headers = [
            (b"content-length", b"%d" % len(content)),
            _JSON_TYPE,
            _VARY,
            (b"server-timing", server_timing(timings).encode("ascii")),
        ]


_JSON_TYPE = (b"content-type", JSON.encode("ascii"))
_VARY = (b"vary", b"Accept")  # the form is chosen by it


def describe(served: Served) -> Mapping[str, Any]:
    """All that an answer says of its making: `branch`, provenance, `degraded`, `warnings`; not to be changed."""
    return served.described()


def json_answer(body: Mapping[str, Any], timings: Timings) -> Response:
    """`body` may hold numpy arrays and scalars."""
    with timings.stage("encode"):
        content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return WrittenJson(content, timings)


def fresh_json(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON about what may change the next moment: no cache keeps it."""
    said = {"Cache-Control": "no-store", **(headers or {})}
    return Response(lasting_json(body), status, media_type=JSON, headers=said)


def lasting_json(body: object) -> bytes:
    """JSON of what may have been stored by an earlier version: what orjson can't write is no error.

    Integers beyond 64 bits are written as they are, lone surrogates as question marks.
    """
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def binary_answer(
    content: bytes,
    media_type: str,
    served: Served,
    headers: Mapping[str, str] | None = None,
    timings: Timings | None = None,
) -> Response:
    """Any other form than JSON, of one frame; see `described_answer`."""
    return described_answer(content, media_type, describe(served), timings or served.timings, headers)


def described_answer(
    content: bytes,
    media_type: str,
    made_by: Mapping[str, Any],
    timings: Timings,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Any other form than JSON: what JSON says in fields stands in `X-Provenance`, ASCII JSON on one line."""
    said = {
        "Server-Timing": server_timing(timings),
        "X-Provenance": _ascii(made_by),
        "Vary": "Accept",
        **(headers or {}),
    }
    return Response(content, media_type=media_type, headers=said)


def described_json(body: Mapping[str, Any], made_by: Mapping[str, Any], timings: Timings) -> Response:
    """JSON in the form of another API, which has no fields for provenance: they are in `X-Provenance`."""
    with timings.stage("encode"):
        content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return described_answer(content, JSON, made_by, timings)


def total(frames: Sequence[Timings]) -> Timings:
    """The stages of a batch, added up."""
    timings = Timings()
    for frame in frames:
        timings.add(frame)
    return timings


def server_timing(timings: Timings) -> str:
    """The header `Server-Timing`: every stage in milliseconds."""
    return _TIMING % tuple(timings.ms.values())


_TIMING = ", ".join(f"{stage};dur=%.3f" for stage in STAGES)


def _ascii(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)
