"""Answers of each command for one input: the request, the files to save, and the row of the table."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from app.commands.predict.asking import Asking, json_of
from app.commands.predict.errors import InputFailed, RunFailed
from app.commands.predict.inputs import Input
from app.commands.predict.saving import Saver
from app.commands.smoke.http import Reply, multipart
from app.commands.video_list import shown

_NPY = "application/x-npy"
_ROUTES = {
    "detect": "/v1/detect", "depth": "/v1/depth", "flow": "/v1/flow", "places": "/v1/places",
    "embed": "/v1/clip/image",
}  # fmt: skip
_TEXT_ROUTE = "/v1/clip/text"
# What `--save` may write, by command; the JSON last, so that one that is there belongs to a complete answer.
KINDS: Mapping[str, tuple[str, ...]] = {
    "detect": ("jpg", "png", "mp4", "ndjson", "json"),
    "depth": ("png", "npy", "json"),
    "flow": ("png", "npy", "json"),
    "places": ("json",),
    "embed": ("npy", "json"),
}
HEADINGS = {"detect": "found", "depth": "depth", "flow": "motion", "places": "scene", "embed": "embedding"}
Query = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """An input's answer: the gateway's object with the input and what was saved, and the cells of its row."""

    document: dict[str, Any]
    size: str
    branch: str
    ms: float
    result: str
    vector: NDArray[np.float32] | None = None
    warnings: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Work:
    """The work of one run on each input."""

    command: str
    asking: Asking
    query: Query
    saver: Saver | None = None

    def picture(self, entry: Input, data: bytes) -> Answer:
        """Answer one picture.

        Raises:
            InputFailed, RunFailed: see `Asking.ask`.
        """
        return _OF_PICTURES[self.command](self, entry, data)

    def path(self, route: str | None = None) -> str:
        """The route with the query."""
        text = urlencode({name: ",".join(values) for name, values in self.query.items()})
        return (route or _ROUTES[self.command]) + (f"?{text}" if text else "")

    def pair(self, entry: Input, other: Input, first: bytes, second: bytes) -> Answer:
        """Answer two pictures: how far each pixel of the first moves."""
        body, kind = multipart({"frame0": first, "frame1": second})
        started = time.perf_counter()
        digests = [_sha256(first), _sha256(second)]
        reply, values = self._array(self.path(), body, kind)
        ms = _ms(started)
        from app.pipelines.flow import colour_picture  # noqa: PLC0415  # OpenCV, for those who save
        from app.vision import flow as flows  # noqa: PLC0415  # ditto

        said = {"flow": flows.statistics(values), **_sizes(values.shape[1:]), **_provenance(reply)}
        saved = []
        if self.saver is not None:
            saved = [
                self.saver.bytes(entry, "png", colour_picture(values)),
                self.saver.bytes(entry, "npy", reply.body),
            ]
        return self.answer(entry, digests, said, ms, saved, names=[entry.name, other.name])

    def text(self, entry: Input) -> Answer:
        """Answer a text with its embedding."""
        words = entry.text or ""
        normalize = {name: values for name, values in self.query.items() if name == "normalize"}
        path = f"{_TEXT_ROUTE}?{urlencode({n: v[0] for n, v in normalize.items()})}".rstrip("?")
        started = time.perf_counter()
        body = json.dumps({"prompts": [words]}).encode()
        said = json_of(self.asking.ask(path, body, {"Content-Type": "application/json"}))
        ms = _ms(started)
        return self._embedded(
            entry, said, said["embeddings"][0], ms, _sha256(words.encode("utf-8", "replace"))
        )

    def answer(
        self,
        entry: Input,
        digest: Any,
        said: Mapping[str, Any],
        ms: float,
        saved: Sequence[str],
        vector: NDArray[np.float32] | None = None,
        names: Sequence[str] = (),
    ) -> Answer:
        """Put an answer together, and save it where that is wanted; `names` are the inputs' where there are several."""
        paths = list(saved)
        if self.saver is not None:
            paths.append(shown(self.saver.path(entry, "json")))
        document = {"input": names or entry.name, "input_sha256": digest, "saved": paths, **said}
        if self.saver is not None:
            self.saver.json(entry, document)
        image = said.get("image")
        return Answer(
            document,
            f"{image['width']}x{image['height']}" if image else "",
            said["branch"]["name"],
            ms,
            _RESULTS[self.command](said),
            vector,
            tuple(said.get("warnings", ())),
        )

    def json(self, data: bytes) -> tuple[dict[str, Any], float]:
        """Ask for the JSON answer to a picture; how long that took, in ms."""
        started = time.perf_counter()
        said = json_of(self.asking.ask(self.path(), data))
        return said, _ms(started)

    def array(self, data: bytes) -> tuple[Reply, NDArray[np.float32], float]:
        """Ask for the array that answers a picture."""
        started = time.perf_counter()
        reply, values = self._array(self.path(), data, "application/octet-stream")
        return reply, values, _ms(started)

    def embedded(self, entry: Input, data: bytes) -> Answer:
        """Answer a picture with its embedding."""
        said, ms = self.json(data)
        return self._embedded(entry, said, said["embedding"], ms, _sha256(data))

    def _embedded(self, entry: Input, said: dict[str, Any], numbers: Any, ms: float, digest: str) -> Answer:
        vector = np.asarray(numbers, np.float32)
        saved = [] if self.saver is None else [self.saver.bytes(entry, "npy", npy(vector))]
        return self.answer(entry, digest, said, ms, saved, vector=vector)

    def _array(self, path: str, body: bytes, kind: str) -> tuple[Reply, NDArray[np.float32]]:
        reply = self.asking.ask(path, body, {"Accept": _NPY, "Content-Type": kind})
        try:
            values: NDArray[np.float32] = np.load(io.BytesIO(reply.body), allow_pickle=False)
        except ValueError as error:
            raise RunFailed("the answer is no array: is it a gateway?") from error
        return reply, values


def npy(array: NDArray[np.float32]) -> bytes:
    """An array in NumPy's format."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _detect(work: Work, entry: Input, data: bytes) -> Answer:
    said, ms = work.json(data)
    saved = []
    if work.saver is not None:
        from app.commands.predict.drawing import boxes_on  # noqa: PLC0415  # OpenCV, for those who save

        kind = "jpg" if data.startswith(b"\xff\xd8\xff") else "png"
        saved = [work.saver.bytes(entry, kind, boxes_on(data, said["detections"], jpeg=kind == "jpg"))]
    return work.answer(entry, _sha256(data), said, ms, saved)


def _depth(work: Work, entry: Input, data: bytes) -> Answer:
    if work.saver is None:
        said, ms = work.json(data)
        return work.answer(entry, _sha256(data), said, ms, ())
    reply, values, ms = work.array(data)
    from app.media.encodings import colour_bytes  # noqa: PLC0415  # OpenCV, for those who save
    from app.vision.depth import statistics  # noqa: PLC0415  # ditto

    said = {"depth": statistics(values), **_sizes(values.shape), **_provenance(reply)}
    saved = [
        work.saver.bytes(entry, "png", colour_bytes(values)),
        work.saver.bytes(entry, "npy", reply.body),
    ]
    return work.answer(entry, _sha256(data), said, ms, saved)


def _places(work: Work, entry: Input, data: bytes) -> Answer:
    said, ms = work.json(data)
    return work.answer(entry, _sha256(data), said, ms, ())


_OF_PICTURES: Mapping[str, Callable[[Work, Input, bytes], Answer]] = {
    "detect": _detect,
    "depth": _depth,
    "places": _places,
    "embed": Work.embedded,
}


def _sizes(shape: tuple[int, ...]) -> dict[str, Any]:
    size = {"width": shape[1], "height": shape[0]}
    return {"map": size, "image": size}


def _provenance(reply: Reply) -> dict[str, Any]:
    """Return the facts in the headers of an answer that isn't JSON."""
    try:
        said: dict[str, Any] = json.loads(reply.headers["x-provenance"])
    except (KeyError, ValueError) as error:
        raise InputFailed(
            "no_provenance", "the answer came without X-Provenance: does a proxy drop it?"
        ) from error
    return said


def counted(detections: Sequence[Mapping[str, Any]]) -> str:
    """`2 person, 1 bus`: the most frequent first."""
    counts = Counter(str(found["class_name"]) for found in detections)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"


def _said_of_depth(said: Mapping[str, Any]) -> str:
    depth = said["depth"]
    return f"{depth['min']:.3g} to {depth['max']:.3g}, mean {depth['mean']:.3g} (greater is nearer)"


def _said_of_flow(said: Mapping[str, Any]) -> str:
    flow = said["flow"]
    return (
        f"mean {flow['magnitude_mean']:.3g} px, greatest {flow['magnitude_max']:.3g} px "
        f"(x {flow['dx_mean']:+.3g}, y {flow['dy_mean']:+.3g})"
    )


def _said_of_places(said: Mapping[str, Any]) -> str:
    return ", ".join(f"{place['category']} {place['probability']:.2f}" for place in said["places"])


def _said_of_embedding(said: Mapping[str, Any]) -> str:
    cut = ", cut to 75 tokens" if any(said.get("truncated", ())) else ""
    return f"{said['dimension']} numbers{', length 1' if said['normalized'] else ''}{cut}"


_RESULTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "detect": lambda said: counted(said["detections"]),
    "depth": _said_of_depth,
    "flow": _said_of_flow,
    "places": _said_of_places,
    "embed": _said_of_embedding,
}
