"""A finished analysis, and one format of files that are made of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

from app import extras
from app.media.npz import Archive
from app.media.video.reader import VideoLimits
from app.videos.components.base import Component
from app.videos.profile import Profile, SamplingRule
from app.videos.stores.base import ArtifactStore

_BLOCK_BYTES = 4 << 20
_BLOCK_FRAMES = 1024


def _nothing() -> None:
    """Let the work go on."""


@dataclass(frozen=True, slots=True)
class Finished:
    """One finished analysis: its artefacts, its manifest, and the video that it was made of; None: that is gone.

    `check` is called between files and between frames; what it raises ends the work.
    """

    output: ArtifactStore
    manifest: Mapping[str, Any]
    components: Mapping[str, type[Component]]
    video: BinaryIO | None
    sampling: SamplingRule
    limits: VideoLimits
    check: Callable[[], None] = _nothing

    def artifacts(self) -> Iterator[tuple[type[Component], str]]:
        """Yield each component that was run, and the name of its artefact."""
        names = {row["name"] for row in self.manifest["artifacts"]}
        for component in self.components.values():
            name = f"{component.name}/{component.artifact}"
            if name in names:
                yield component, name

    def artifact(self, component: type[Component]) -> str | None:
        """Return the name of a component's artefact; None if it was not run."""
        return next((name for kind, name in self.artifacts() if kind is component), None)

    @contextmanager
    def opened(self, name: str) -> Iterator[Archive]:
        """Context manager with an artefact that is read.

        Raises:
            OSError: it can't be read.
        """
        with self.output.open(name) as file, Archive(file) as archive:
            yield archive


class Format(ABC):
    """One format.

    `name` on the command line; `version` of the files' layout: files of another one are made again; `extra`: the extra
    of this project that it needs.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    extra: ClassVar[str | None] = None
    needs_video: ClassVar[bool] = False

    def available(self) -> bool:
        """Return False if the package of its extra is missing."""
        return self.extra is None or extras.missing(self.extra) is None

    @abstractmethod
    def files(self, finished: Finished) -> Sequence[str]:
        """Return the names of the files that `make` writes, below the output folder."""

    @abstractmethod
    def make(self, finished: Finished) -> None:
        """Write the files, each of them completely or not at all.

        Raises:
            OSError: one can't be written.
            GatewayError: the video can't be read.
        """


def frames_per_block(archive: Archive, names: Sequence[str]) -> int:
    """Return the number of frames whose arrays take a few MB together."""
    headers = [archive.shape(name) for name in names]
    nbytes = sum(dtype.itemsize * math.prod(shape[1:]) for shape, dtype in headers)
    return max(1, min(_BLOCK_FRAMES, _BLOCK_BYTES // max(1, nbytes)))


def kinds_of(profile: Profile) -> dict[str, type[Component]]:
    """Return the kinds of a profile's components by name."""
    kinds = [kind for kind, _ in profile.components.given()]
    return {kind.name: kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Component)}
