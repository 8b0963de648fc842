"""Cases for every target: pictures, requests, and checks of the answers."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import ROOT
from benchmarks.common.null_models import BOXES

PHOTO = ROOT / "docs" / "astronaut.jpg"
# Pictures a case: one alone would teach the caches its bytes.
PICTURES = 4
QUALITY = 85
BOUNDARY = "speed-benchmark"


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request. `parts`: names of the multipart parts that hold its frames; none: the raw body.

    `path` and `accept` are the gateway's own; peers have one route per family. `at_source`: the map comes back in the
    picture's size, not in the branch's.
    """

    name: str
    family: str
    branch: str
    width: int
    height: int
    path: str
    accept: str
    check: Callable[[bytes], str | None]
    parts: tuple[str, ...] = ()
    at_source: bool = False

    def frames(self) -> list[list[bytes]]:
        """JPEGs of `PICTURES` requests."""
        count = max(1, len(self.parts))
        return [
            [jpeg(self.width, self.height, seed + 3 * at) for at in range(count)] for seed in range(PICTURES)
        ]


@functools.cache
def jpeg(width: int, height: int, seed: int) -> bytes:
    """A photo of that size: the astronaut in her own resolution, mirrored at its edges, moved by `seed`."""
    photo = np.asarray(Image.open(PHOTO).convert("RGB"))
    shift = 16 * seed
    more = [
        (0, max(0, side + shift - have)) for side, have in zip((height, width), photo.shape, strict=False)
    ]
    pixels = np.pad(photo, (*more, (0, 0)), mode="symmetric")[shift : shift + height, shift : shift + width]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def body(case: Case, frames: Sequence[bytes], part: str | None = None) -> tuple[bytes, str]:
    """Body and content type of a request; `part`: the name of a single frame's part where a form is wanted."""
    names = case.parts or ((part,) if part else ())
    if not names:
        return frames[0], "image/jpeg"
    pieces = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode()
        + frame
        + b"\r\n"
        for name, frame in zip(names, frames, strict=True)
    ]
    return b"".join([*pieces, f"--{BOUNDARY}--\r\n".encode()]), f"multipart/form-data; boundary={BOUNDARY}"


def request(path: str, content: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole HTTP/1.1 request on a connection that stays open."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def _boxes(answer: bytes) -> str | None:
    found = json.loads(answer)["detections"]
    if len(found) != BOXES:
        return f"{len(found)} boxes, not {BOXES}"
    whole = all({"box", "score", "class_id", "class_name"} <= set(row) for row in found)
    return None if whole else "fields are missing"


def _npy(*shape: int) -> Callable[[bytes], str | None]:
    def check(answer: bytes) -> str | None:
        array: NDArray[np.float32] = np.load(io.BytesIO(answer), allow_pickle=False)
        if array.shape != shape or array.dtype != np.float32:
            return f"{array.dtype} {array.shape}, not float32 {shape}"
        return None

    return check


def _embedding(answer: bytes) -> str | None:
    values = json.loads(answer)["embedding"]
    norm = float(np.linalg.norm(values))
    return None if len(values) == 512 and abs(norm - 1) < 1e-3 else f"{len(values)} values of norm {norm}"


def _places(answer: bytes) -> str | None:
    rows = json.loads(answer)["places"]
    return None if len(rows) == 5 and "category" in rows[0] else f"{len(rows)} rows"


NPY = "application/x-npy"
JSON = "application/json"
# What people send: a webcam's frame, a film's, a phone's portrait, a camera's.
SIZES = {"640x480": (640, 480), "1080p": (1920, 1080), "1080x1350": (1080, 1350), "4k": (3840, 2160)}


def _of(size: str) -> list[Case]:
    """Every family at one size; no branch takes any of them as it is."""
    width, height = at = SIZES[size]
    pair = ("frame0", "frame1")
    return [
        Case(f"detect_{size}", "detect", "yolo11n_640", *at, "/v1/detect?branch=640", JSON, _boxes),
        Case(f"depth_{size}", "depth", "midas_512", *at, "/v1/depth?branch=512&size=branch", NPY, _npy(512, 512)),
        Case(f"depth_{size}_source", "depth", "midas_512", *at, "/v1/depth?branch=512", NPY, _npy(height, width),
             at_source=True),
        Case(f"flow_{size}", "flow", "raft_512", *at, "/v1/flow?branch=512&size=branch", NPY, _npy(2, 512, 512), pair),
        Case(f"clip_image_{size}", "clip_image", "clip_image_224", *at, "/v1/clip/image?branch=224", JSON, _embedding),
        Case(f"places_{size}", "places", "places365_resnet50_224", *at, "/v1/places?branch=224&k=5", JSON, _places),
    ]  # fmt: skip


CASES: Mapping[str, Case] = {case.name: case for size in SIZES for case in _of(size)}
# Those with targets, and those that `bench-guard` compares.
MAIN = tuple(
    f"{family}_{size}"
    for family in ("detect", "depth", "clip_image", "places")
    for size in ("640x480", "1080p")
)
GUARD = ("detect_640x480", "depth_640x480", "clip_image_1080p")


def select(text: str) -> tuple[str, ...]:
    """Names of cases: `main`, `guard`, `all`, or names and patterns such as `depth_*`, separated by commas.

    Raises:
        ValueError: a pattern names none.
    """
    groups = {"main": MAIN, "guard": GUARD, "all": tuple(CASES)}
    found: dict[str, None] = {}
    for pattern in text.split(","):
        names = groups.get(pattern) or tuple(name for name in CASES if fnmatchcase(name, pattern))
        if not names:
            raise ValueError(f"no case is called {pattern!r}; there are: {', '.join((*groups, *CASES))}")
        found |= dict.fromkeys(names)
    return tuple(found)
