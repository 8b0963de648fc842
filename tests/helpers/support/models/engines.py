"""Shared parts of the engine tests: the kinds of engine, and the test repository's models in numpy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from app.engine.base import Engine, ModelState
from app.engine.endpoints.engine import EndpointOptions, TritonEndpoints
from app.engine.endpoints.names import Listed, Place
from app.engine.fake import Arrays
from app.engine.triton.engine import TritonEngine, TritonOptions
from app.engine.weights import WeightsBook
from routing.provenance import UNKNOWN
from support.models.repository import CATALOGUE, DEPTH, DETECTORS
from support.waiting import PATIENCE_S, eventually

ENGINES = (
    "fake",
    "embedded",
    pytest.param("shared_memory", marks=pytest.mark.triton),
    pytest.param("bytes", marks=pytest.mark.triton),
    "embedded_fp16",  # the same models, computed in half precision
    pytest.param("shared_memory_fp16", marks=pytest.mark.triton),
    pytest.param("two_servers", marks=pytest.mark.triton),  # one engine over two Tritons
)
FP16 = "_fp16"
TWO_SERVERS = "two_servers"
Make = Callable[..., Engine]


def colour_detector(inputs: Arrays, outputs: Arrays) -> None:
    """Compute the test repository's detector in numpy."""
    images = inputs["images"]
    size = images.shape[2]
    parts = []
    for stride, weight in ((8, 0.1), (16, 0.1), (32, 1.0)):
        cells = size // stride
        mean = images.reshape(3, cells, stride, cells, stride).mean(axis=(2, 4)).reshape(3, -1)
        scores = np.zeros((80, cells * cells), np.float32)
        scores[:3] = np.maximum(weight * (1.5 * mean - 0.5 * mean.sum(axis=0)), 0)
        centres = (np.arange(cells) + 0.5) * stride
        y, x = (axis.ravel() for axis in np.meshgrid(centres, centres, indexing="ij"))
        parts.append(
            np.concatenate([np.stack([x, y, np.full_like(x, stride), np.full_like(x, stride)]), scores])
        )
    outputs["output0"][0] = np.concatenate(parts, axis=1)


def mean_depth(inputs: Arrays, outputs: Arrays) -> None:
    """The ensemble midas_256 of the test repository: normalise, then the mean over channels."""
    outputs["OUTPUT__0"][...] = ((inputs["INPUT__0"].astype(np.float32) / 255 - 0.5) / 0.5).mean(axis=3)


FUNCTIONS = {**dict.fromkeys(DETECTORS, colour_detector), **dict.fromkeys(DEPTH, mean_depth)}


def triton_engine(
    url: str, book: WeightsBook | None = None, *, connects: bool = True, known: bool = False, **options: Any
) -> TritonEngine:
    """Make an engine over a Triton that runs, and return it once it is connected (at once, if it never `connects`).

    If `known`, the weights of all that is ready are known then, which the `book` must allow. A busy machine can't break
    it: neither a slow connection at the start, nor digests that come late, nor a late answer to a poll.
    """
    patient = {"silence_s": PATIENCE_S, "control_timeout_s": PATIENCE_S}
    made = TritonEngine(
        CATALOGUE, url, book or WeightsBook(None, None), TritonOptions(**{**patient, **options})
    )
    try:
        if connects:
            eventually(lambda: bool(made.usage().connected))
        if known:
            eventually(lambda: all(map(_known, made.ready().values())))
    except BaseException:
        made.close()
        raise
    return made


def two_servers(urls: Sequence[str], books: Sequence[WeightsBook], **options: Any) -> TritonEndpoints:
    """Make one engine over several Tritons that run; otherwise as `triton_engine`, with `known` weights."""
    listed = [Listed(host, int(port)) for host, _, port in (url.rpartition(":") for url in urls)]

    def one(place: Place) -> TritonEngine:
        return triton_engine(place.target, books[place.entry], known=True, endpoint=place.target, **options)

    return TritonEndpoints(CATALOGUE, listed, one, EndpointOptions(options.get("leases", 4)))


def waiting(engine: Any, branch: str) -> int:
    """Return the number of threads in the queue of a branch."""
    servers: list[Any] = (
        [one.engine for one in engine._members.all] if isinstance(engine, TritonEndpoints) else [engine]
    )
    return sum(len(server._pools[branch]._waiting) for server in servers if branch in server._pools)


def _known(state: ModelState) -> bool:
    return not state.ready or state.weights.digest != UNKNOWN


def recover_now(engine: Any) -> None:
    """Begin the recoveries that wait, as the end of their pauses would."""
    quarantine = engine._quarantine
    with quarantine._wake:
        for case in quarantine._cases.values():
            case.due = time.monotonic()
        quarantine._wake.notify()
