"""Probes: one request that runs one branch of a family over HTTP, and the numbers of its answer.

`gateway smoke` and the benchmarks call every family by these records; a row of `app.families` has one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from routing.catalogue import STANDARD, Branch

NPY = "application/x-npy"
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class JsonNumbers:
    """Numbers of a family that answers in JSON alone: `read` takes the document, `shape` has -1 for any length."""

    name: Callable[[Branch], str]
    shape: Callable[[Branch], tuple[int, ...]]
    read: Callable[[Branch, Mapping[str, Any]], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Probe:
    """One request to a family's route.

    `query` goes with every request, `every_number` with those that want all numbers of the answer. `parts` name the
    multipart parts of several frames; a single frame is the raw body. With `prompts` the body is JSON with prompts,
    and only a variant can be chosen. Without `numbers` the answer is asked for as npy: the model's output without its
    batch axis.
    """

    query: str = ""
    every_number: str = ""
    parts: tuple[str, ...] = ()
    prompts: bool = False
    numbers: JsonNumbers | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Headers that ask for the form that `arrays` reads."""
        return {} if self.numbers is not None else {"Accept": NPY}

    def path(self, route: str, branch: Branch, *, every_number: bool = False) -> str:
        """Return the path and query of a request to `route` that this branch serves."""
        wishes = [self.query, self.every_number if every_number else ""]
        if not self.prompts:
            wishes.append(f"branch={quote(branch.name)}")
        elif branch.own:
            wishes.append(f"variant={branch.variant or STANDARD}")
        query = "&".join(wish for wish in wishes if wish)
        return f"{route}?{query}" if query else route

    def shapes(self, branch: Branch) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `arrays`; -1 stands for any length."""
        if self.numbers is not None:
            return {self.numbers.name(branch): self.numbers.shape(branch)}
        spec = branch.outputs[0]
        return {spec.name: (1, spec.shape[-1]) if self.prompts else spec.shape[1:]}

    def arrays(self, branch: Branch, body: bytes) -> Arrays:
        """Read the numbers of an answer.

        Raises:
            KeyError, TypeError, ValueError, IndexError: it is no such answer.
        """
        if self.numbers is not None:
            return {self.numbers.name(branch): self.numbers.read(branch, json.loads(body))}
        return {branch.outputs[0].name: np.load(io.BytesIO(body), allow_pickle=False)}


_BOX = 6  # x1, y1, x2, y2, score, class


def _boxes(_: Branch, document: Mapping[str, Any]) -> NDArray[np.float64]:
    rows = [[*row["box"], row["score"], row["class_id"]] for row in document["detections"]]
    return np.array(rows, np.float64).reshape(len(rows), _BOX)


def _probabilities(branch: Branch, document: Mapping[str, Any]) -> NDArray[np.float64]:
    found = np.full(branch.outputs[0].shape[1], np.nan)
    for place in document["places"]:
        found[place["category_id"]] = place["probability"]
    return found


BOXES = JsonNumbers(lambda _: "detections", lambda _: (-1, _BOX), _boxes)
CATEGORIES = JsonNumbers(
    lambda branch: branch.outputs[0].name, lambda branch: branch.outputs[0].shape[1:], _probabilities
)
