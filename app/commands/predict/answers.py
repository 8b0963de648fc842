"""The answer to one input: the request, the files to save, and the row of the table."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from app.commands.predict.asking import Asking, json_of
from app.commands.predict.errors import InputFailed, RunFailed
from app.commands.predict.families.base import FamilyCommand
from app.commands.predict.inputs import Input
from app.commands.predict.saving import Saver
from app.commands.smoke.http import Reply
from app.videos.names import shown

_NPY = "application/x-npy"
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

    command: FamilyCommand
    asking: Asking
    query: Query
    saver: Saver | None = None

    def picture(self, entry: Input, data: bytes) -> Answer:
        """Answer one picture.

        Raises:
            InputFailed, RunFailed: see `Asking.ask`.
        """
        return self.command.picture(self, entry, data)

    def path(self) -> str:
        """The route with the query."""
        text = urlencode({name: ",".join(values) for name, values in self.query.items()})
        return self.command.route + (f"?{text}" if text else "")

    def answer(
        self,
        entry: Input,
        data: bytes | Sequence[bytes],
        said: Mapping[str, Any],
        ms: float,
        saved: Sequence[str] = (),
        vector: NDArray[np.float32] | None = None,
        names: Sequence[str] = (),
    ) -> Answer:
        """Put an answer together, and save it where that is wanted.

        `data` are the bytes of the input; there are several, and their `names`, if the answer is to several inputs.
        """
        paths = list(saved)
        if self.saver is not None:
            paths.append(shown(self.saver.path(entry, "json")))
        digests = _sha256(data) if isinstance(data, bytes) else [_sha256(one) for one in data]
        document = {"input": names or entry.name, "input_sha256": digests, "saved": paths, **said}
        if self.saver is not None:
            self.saver.json(entry, document)
        image = said.get("image")
        return Answer(
            document,
            f"{image['width']}x{image['height']}" if image else "",
            said["branch"]["name"],
            ms,
            self.command.result(said),
            vector,
            tuple(said.get("warnings", ())),
        )

    def json(self, data: bytes) -> tuple[dict[str, Any], float]:
        """Ask for the JSON answer to a picture; how long that took, in ms."""
        started = time.perf_counter()
        said = json_of(self.asking.ask(self.path(), data))
        return said, _ms(started)

    def array(
        self, body: bytes, kind: str = "application/octet-stream"
    ) -> tuple[Reply, NDArray[np.float32], float]:
        """Ask for the array that answers a body of this media type; how long that took, in ms."""
        started = time.perf_counter()
        reply, values = self._array(self.path(), body, kind)
        return reply, values, _ms(started)

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


def sizes(shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the sizes of a map `[height, width]` that is as large as its picture, as an answer has them."""
    size = {"width": shape[1], "height": shape[0]}
    return {"map": size, "image": size}


def provenance(reply: Reply) -> dict[str, Any]:
    """Return the facts in the headers of an answer that isn't JSON."""
    try:
        said: dict[str, Any] = json.loads(reply.headers["x-provenance"])
    except (KeyError, ValueError) as error:
        raise InputFailed(
            "no_provenance", "the answer came without X-Provenance: does a proxy drop it?"
        ) from error
    return said
