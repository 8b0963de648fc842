"""Calls that take pictures and videos."""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from triton_vision_gateway_client.answers.decode import decode
from triton_vision_gateway_client.answers.detections import Detections
from triton_vision_gateway_client.answers.families import (
    DepthMap,
    DepthSummary,
    Drawing,
    Embedding,
    FlowField,
    FlowSummary,
    Places,
)
from triton_vision_gateway_client.answers.provenance import Batch, Outcome, described
from triton_vision_gateway_client.calls.base import (
    JSON,
    NDJSON,
    NPY,
    Call,
    Form,
    Part,
    Raw,
    Received,
    Request,
    Streamed,
    posted,
    query_of,
    timeout_in,
)
from triton_vision_gateway_client.errors import UnexpectedAnswer, from_problem
from triton_vision_gateway_client.media import (
    PictureLike,
    Upload,
    VideoLike,
    media_type,
    name_of,
    picture_bytes,
)
from triton_vision_gateway_client.options import PictureForm
from triton_vision_gateway_client.retries import Repeat

T = TypeVar("T")
Options = Mapping[str, object]
Parse = Callable[[Mapping[str, Any]], T]
DETECT, DEPTH, FLOW = "/v1/detect", "/v1/depth", "/v1/flow"
IMAGE, PLACES = "/v1/clip/image", "/v1/places"
_ENDINGS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/bmp": "bmp"}
_COCO, _CSV = "application/vnd.coco+json", "text/csv"


# --- detection ---


def detect(
    picture: PictureLike, session: str | None, timestamp: float | None, options: Options
) -> Call[Detections]:
    """Build the call for one picture; one of a session isn't sent again once it may have been counted."""
    repeat = Repeat.ALWAYS if session is None else Repeat.REFUSED
    request = posted(DETECT, _raw(picture), options, repeat=repeat, session=session, timestamp=timestamp)
    return Call(request=request, parse=_json(detections))


def detect_batch(
    pictures: Sequence[PictureLike],
    session: str | None,
    timestamps: Sequence[float] | None,
    options: Options,
) -> Call[Batch[Detections]]:
    """Build the call for several pictures, or for one by several variants."""
    repeat = Repeat.ALWAYS if session is None else Repeat.REFUSED
    request = posted(DETECT, _form(pictures), options, repeat=repeat, session=session, timestamp=timestamps)
    return Call(request=request, parse=_json(functools.partial(_batch, detections)))


def detect_variants(
    picture: PictureLike, variants: Sequence[str], options: Options
) -> Call[Batch[Detections]]:
    """Build the call for one picture by several variants."""
    chosen = list(dict.fromkeys(variants))
    if not chosen:
        raise ValueError("name at least one variant")
    request = posted(DETECT, _raw(picture), options, variant=",".join(chosen))
    return Call(request=request, parse=_json(functools.partial(_batch, detections)))


def detect_coco(pictures: Sequence[PictureLike], options: Options) -> Call[dict[str, Any]]:
    """Build the call for the service's own COCO dataset of pictures."""
    return Call(request=posted(DETECT, _form(pictures), options, _COCO), parse=Received.object)


def detect_csv(pictures: Sequence[PictureLike], options: Options) -> Call[str]:
    """Build the call for the service's own CSV of pictures."""
    return Call(request=posted(DETECT, _form(pictures), options, _CSV), parse=_text)


def _text(received: Received) -> str:
    return received.content.decode("utf-8")


# --- depth and flow ---


def depth(picture: PictureLike, options: Options) -> Call[DepthMap]:
    """Build the call for a depth map."""
    return Call(request=_one(DEPTH, picture, NPY, options), parse=_array(DepthMap))


def depth_summary(picture: PictureLike, options: Options) -> Call[DepthSummary]:
    """Build the call for a depth map's statistics."""
    return Call(request=_one(DEPTH, picture, JSON, options), parse=_json(depth_numbers))


def depth_batch(pictures: Sequence[PictureLike], options: Options) -> Call[Batch[DepthSummary]]:
    """Build the call for the statistics of several pictures."""
    return _batch_call(DEPTH, pictures, depth_numbers, options)


def flow(first: PictureLike, second: PictureLike, options: Options) -> Call[FlowField]:
    """Build the call for the flow between two pictures."""
    return Call(request=_pair(first, second, NPY, options), parse=_array(FlowField))


def flow_summary(first: PictureLike, second: PictureLike, options: Options) -> Call[FlowSummary]:
    """Build the call for a flow field's statistics."""
    return Call(request=_pair(first, second, JSON, options), parse=_json(flow_numbers))


def drawing(path: str, pictures: Sequence[PictureLike], form: PictureForm, options: Options) -> Call[Drawing]:
    """Build the call for a picture to look at: boxes, depth in colour, or flow in colour (two pictures)."""
    accept = f"image/{form}"
    if path == FLOW:
        request = _pair(pictures[0], pictures[1], accept, options)
    else:
        request = _one(
            path, pictures[0], accept, {**options, "render": "color"} if path == DEPTH else options
        )

    def parse(received: Received) -> Drawing:
        return decode(
            Drawing,
            made_by(received),
            content=received.content,
            media_type=received.headers.get("content-type", accept),
        )

    return Call(request=request, parse=parse)


# --- embeddings of pictures, scenes ---


def embed_image(picture: PictureLike, options: Options) -> Call[Embedding]:
    """Build the call for a picture's embedding."""
    normalized = options.get("normalize", True) is not False

    def parse(received: Received) -> Embedding:
        return decode(Embedding, made_by(received), vector=npy(received), normalized=normalized)

    return Call(request=_one(IMAGE, picture, NPY, options), parse=parse)


def embed_images(pictures: Sequence[PictureLike], options: Options) -> Call[Batch[Embedding]]:
    """Build the call for the embeddings of several pictures."""
    return _batch_call(IMAGE, pictures, embedding, {**options, "encoding": "base64"})


def places(picture: PictureLike, options: Options) -> Call[Places]:
    """Build the call for a picture's scene categories."""
    return Call(request=_one(PLACES, picture, JSON, options), parse=_json(scenes))


def places_batch(pictures: Sequence[PictureLike], options: Options) -> Call[Batch[Places]]:
    """Build the call for the scene categories of several pictures."""
    return _batch_call(PLACES, pictures, scenes, options)


# --- videos ---


def video(path: str, source: VideoLike, options: Options) -> Request:
    """Build the request for a video's lines."""
    more = {"encoding": "base64"} if path == IMAGE else {}
    return Request(
        method="POST",
        path=path,
        query=query_of({"provenance": "change", **options, **more}),
        accept=f"{NDJSON}, {JSON}",
        body=Streamed(Upload(source)),
        timeout=timeout_in(options),
        open_ended=True,
    )


# --- reading answers ---


def detections(document: Mapping[str, Any]) -> Detections:
    """Read boxes."""
    return decode(Detections, document)


def depth_numbers(document: Mapping[str, Any]) -> DepthSummary:
    """Read depth statistics."""
    return decode(DepthSummary, document)


def flow_numbers(document: Mapping[str, Any]) -> FlowSummary:
    """Read flow statistics."""
    return decode(FlowSummary, document)


def embedding(document: Mapping[str, Any]) -> Embedding:
    """Read an embedding in base64."""
    return decode(Embedding, document, vector=vector_of(document.get("embedding")))


def scenes(document: Mapping[str, Any]) -> Places:
    """Read scene categories."""
    return decode(Places, document)


def vector_of(text: object) -> NDArray[np.float32]:
    """Return an embedding: base64 of little-endian float32.

    Raises:
        UnexpectedAnswer: it is something else.
    """
    try:
        return np.frombuffer(base64.b64decode(str(text), validate=True), "<f4").astype(np.float32)
    except ValueError as error:
        raise UnexpectedAnswer("an embedding is no base64 of float32") from error


def npy(received: Received) -> NDArray[np.float32]:
    """Return the array of an npy file.

    Raises:
        UnexpectedAnswer: it is none, or would need pickle.
    """
    try:
        array: NDArray[np.float32] = np.load(io.BytesIO(received.content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UnexpectedAnswer("the answer is no npy file", received.status) from error
    return array


def made_by(received: Received) -> dict[str, Any]:
    """Return what the headers say of how an answer was made: `X-Provenance`, `Server-Timing`, `X-Request-Id`.

    Raises:
        UnexpectedAnswer: `X-Provenance` is missing or no JSON.
    """
    try:
        document = json.loads(received.headers.get("x-provenance", ""))
    except ValueError as error:
        raise UnexpectedAnswer("the answer has no X-Provenance", received.status) from error
    return described(document, received.headers)


def _json(read: Parse[T]) -> Callable[[Received], T]:
    def parse(received: Received) -> T:
        return read(described(received.object(), received.headers))

    return parse


def _array(kind: type[T]) -> Callable[[Received], T]:
    def parse(received: Received) -> T:
        return decode(kind, made_by(received), values=npy(received))

    return parse


def _batch(read: Parse[T], document: Mapping[str, Any]) -> Batch[T]:
    """Read a batch; a single picture is answered by itself."""
    if "results" not in document:
        outcome = Outcome(read(document))
        return decode(Batch, document, results=(outcome,), errors=0)
    request_id = document.get("request_id")
    outcomes = tuple(
        Outcome(None, from_problem(row["error"]))
        if "error" in row
        else Outcome(read({**row, "request_id": request_id}))
        for row in document["results"]
    )
    return decode(Batch, document, results=outcomes)


# --- bodies ---


def _one(path: str, picture: PictureLike, accept: str, options: Options) -> Request:
    return posted(path, _raw(picture), options, accept)


def _pair(first: PictureLike, second: PictureLike, accept: str, options: Options) -> Request:
    parts = tuple(_part(name, picture, name) for name, picture in (("frame0", first), ("frame1", second)))
    return posted(FLOW, Form(parts), options, accept)


def _batch_call(
    path: str, pictures: Sequence[PictureLike], read: Parse[T], options: Options
) -> Call[Batch[T]]:
    request = posted(path, _form(pictures), options)
    return Call(request=request, parse=_json(functools.partial(_batch, read)))


def _raw(picture: PictureLike) -> Raw:
    content = picture_bytes(picture)
    return Raw(content, media_type(content))


def _form(pictures: Sequence[PictureLike]) -> Form:
    return Form(files_of(pictures))


def files_of(pictures: Sequence[PictureLike]) -> tuple[Part, ...]:
    """Return the parts `file` of a form.

    Raises:
        TypeError: it is one picture instead of a sequence.
        ValueError: there is none.
    """
    if isinstance(pictures, str | bytes | bytearray) or hasattr(pictures, "read"):
        raise TypeError("give a list of pictures; for one picture there is a call of its own")
    if len(pictures) == 0:
        raise ValueError("give at least one picture")
    return tuple(_part("file", picture, f"image-{number}") for number, picture in enumerate(pictures, 1))


def _part(name: str, picture: PictureLike, called: str) -> Part:
    content = picture_bytes(picture)
    kind = media_type(content)
    return Part(name, name_of(picture) or f"{called}.{_ENDINGS.get(kind, 'bin')}", content, kind)
