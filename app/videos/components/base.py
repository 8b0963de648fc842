"""The base of a profile's components: what each does with a frame, and which arrays its artefact holds in the end.

A row is a dictionary of arrays whose first axis is 1 (or, for lists that differ in length from frame to frame, as long
as the list); rows are joined along it, kept in chunks on disk, and assembled block by block when the video is over. So
memory holds some frames of a video, however long it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from app.deadline import Deadline
from app.media.npz import Blocks
from app.pipelines.base import Framed, Served, Timings, wishes_of
from app.pipelines.frames import Frame, Sample
from app.pipelines.pipeline_set import PipelineSet
from app.videos.profile import Profile
from routing.catalogue import Branch, Catalogue
from routing.policy import Decision, FrameFacts, Wishes
from routing.reachable import reachable

Row = Mapping[str, NDArray[Any]]
Arrays = dict[str, NDArray[Any] | Blocks]
Frames = Mapping[str, NDArray[Any]]
Texts = Mapping[str, Sequence[str]]
_BLOCK_FRAMES = 1024


class Columns(Protocol):
    """All rows of one component, joined; `frames` samples in all."""

    @property
    def frames(self) -> int: ...

    def chunks(self, *names: str) -> Iterator[tuple[NDArray[Any], ...]]:
        """The columns of these names, some frames at a time."""

    def blocks(self, name: str, dtype: type[Any] | None = None) -> Blocks:
        """A column that has a row per frame, as one of another type where one is given."""


def by_frames(columns: Columns, name: str, most: int = _BLOCK_FRAMES) -> Iterator[NDArray[Any]]:
    """A column that has a row per frame, `most` frames at a time: the same blocks, wherever the chunks end."""
    pending: list[NDArray[Any]] = []
    for (chunk,) in columns.chunks(name):
        pending.append(chunk)
        while sum(map(len, pending)) >= most:
            joined = np.concatenate(pending)
            yield joined[:most]
            pending = [joined[most:]]
    rest = np.concatenate(pending)
    if len(rest):
        yield rest


@dataclass(frozen=True, slots=True)
class Scene:
    """Context that a component is made from: the pipelines, the profile, and the size of the video's frames."""

    pipelines: PipelineSet
    profile: Profile
    facts: FrameFacts

    def decide(self, family: str, wishes: Wishes) -> Decision:
        """The one decision of the video, see `Router.decide`."""
        return self.pipelines.router.decide(family, self.facts, wishes)


class Component(ABC):
    """One component at work on one video.

    `name` in profiles and of the artefact's folder, `artifact` is its file, `family` runs the frames, and `Config` is a
    frozen dataclass of what a profile may say: `branch`, `variant`, and whatever else the component knows.
    """

    name: ClassVar[str]
    artifact: ClassVar[str]
    family: ClassVar[str]
    Config: ClassVar[type[Any]]
    # The artefact's arrays that its table has (patterns), each with a row per frame; None: all numbers that have one.
    table_arrays: ClassVar[tuple[str, ...] | None] = None
    table_texts: ClassVar[
        tuple[str, ...]
    ] = ()  # arrays of texts that the table's rows or readers need (patterns)

    @classmethod
    def table_rows(cls, frames: Frames, texts: Texts) -> tuple[NDArray[np.intp], Frames]:
        """Return the rows of a table for some frames.

        Args:
            frames: `frame_indices`, and the arrays of `table_arrays`, `n` frames of each.
            texts: the arrays of `table_texts`, whole.

        Returns:
            For each row the frame that it belongs to, from 0 to `n - 1`, and the columns by name. A masked value is
            null; an array with a second axis is a column of lists.
        """
        del texts
        columns = {name: values for name, values in frames.items() if name != "frame_indices"}
        return np.arange(len(frames["frame_indices"])), columns

    @classmethod
    def reachable(
        cls, config: Any, catalogue: Catalogue, variant: str | None, *, fallback: bool, compact: bool
    ) -> tuple[Branch, ...]:
        """Return every branch that may serve a video with this configuration; the rest as for `routing.reachable`."""
        wishes = wishes_of(config.branch, config.variant, fallback=fallback)
        return reachable(catalogue[cls.family], wishes, variant, compact=compact)

    def __init__(self, scene: Scene, config: Any) -> None:
        self.scene = scene
        wishes = wishes_of(config.branch, config.variant, fallback=scene.profile.fallback)
        self.first = (
            False  # of the video's components: decoding, done once for all of them, counts as its own
        )
        self.decision = scene.decide(self.family, wishes)
        # One branch serves a whole video, or its arrays would mix two models' numbers: what runs out of memory on the
        # way is waited for, and a job that comes back later decides again.
        self._wishes = replace(wishes, fallback=False)

    def decisions(self) -> Sequence[tuple[str, Decision]]:
        """Return each family that will run, with the branch that serves it."""
        return [(self.family, self.decision)]

    def framed(self, frame: Frame, deadline: Deadline) -> Framed:
        """The surroundings of a frame of this video."""
        height, width = frame.rgb.shape[:2]
        facts = FrameFacts(width, height, self.scene.facts.analysis_width, self.scene.facts.analysis_height)
        timings = Timings(frame.decode_s if self.first else 0.0)
        return Framed(facts, self._wishes, deadline, timings, self.decision)

    def begin(self, deadline: Deadline) -> Sequence[Served]:
        """Work done once per video, before its frames."""
        del deadline
        return ()

    @abstractmethod
    def run(self, frame: Frame, previous: Frame | None, deadline: Deadline) -> Any:
        """On a worker thread: the result of one frame."""

    @abstractmethod
    def served(self, result: Any) -> Served | None:
        """Branch and model that served it."""

    @abstractmethod
    def row(self, sample: Sample, result: Any) -> Row:
        """Make the row of one result; called in the order of the frames."""

    @abstractmethod
    def assemble(self, columns: Columns) -> Arrays:
        """The artefact's arrays, beside the common ones."""

    def meta(self) -> dict[str, Any]:
        """Return the fields of the artefact's `meta_json` beside the common ones."""
        return {}

    def state(self) -> bytes:
        """Return the state that later rows depend on, beside the frames."""
        return b""

    def restore(self, state: bytes) -> None:
        """Resume from a `state`."""
        del state
