"""The table of one component over all videos: parts of about one size, each video in one of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from app.bulk.layout import TABLES
from app.bulk.tables.parts import (
    Part,
    PartWriter,
    is_mostly_rows,
    layout_of,
    longer_part,
    new_part,
    part_number,
    parts_of,
)
from app.bulk.tables.rows import Artifact, Layout, NotTaken, video_table
from app.videos.components.base import Component
from app.videos.stores.base import ArtifactStore


@dataclass(frozen=True, slots=True)
class Settings:
    """Parameters of all datasets of a run.

    `run_id` is part of the names of new parts; a part is full at `part_bytes`; `check` is called right before a part
    appears, and what it raises drops the part.
    """

    store: ArtifactStore
    run_id: str
    part_bytes: int
    check: Callable[[], None]


class Dataset:
    """The parts of one component's table.

    A video is never split: its old rows go and its new ones come in one step, when its part is replaced.

    Args:
        settings: of all datasets.
        component: whose rows they are.
        wanted: the videos that `mark` and `replace` are asked about.
        refused: gets the videos whose artefacts could not be taken, with the reason.
        everything: new parts appear when they are full, or when this is closed.
    """

    def __init__(
        self,
        settings: Settings,
        component: type[Component],
        wanted: Collection[str],
        refused: dict[str, str],
        everything: ExitStack,
    ) -> None:
        self._settings = settings
        self._component = component
        self._refused = refused
        self._everything = everything
        self._folder = f"{TABLES}/{component.name}"
        self._parts = parts_of(settings.store, self._folder, wanted)
        self._next = max((part_number(part.name) for part in self._parts), default=-1) + 1
        self._open: dict[str, tuple[PartWriter, ExitStack]] = {}

    def mark(self, video: str) -> str | None:
        """Return the mark of the artefact whose rows are there; None: there are none."""
        return next((part.videos[video] for part in self._parts if video in part.videos), None)

    def replace(self, changes: Mapping[str, Artifact | None]) -> list[Artifact]:
        """Put the rows of other artefacts in place of those that are there; None: the rows go.

        Returns:
            The artefacts that have another layout than the part of their video: their old rows are gone, and `append`
            takes the new ones.
        """
        moved: list[Artifact] = []
        for part in self._parts:
            here = {video: changes[video] for video in part.videos.keys() & changes.keys()}
            if here:
                moved += self._replace(part, here)
        return moved

    def _replace(self, part: Part, changes: Mapping[str, Artifact | None]) -> list[Artifact]:
        moved: list[Artifact] = []
        try:
            self._rewrite(part, changes, moved)
        except _NothingLeft:
            self._settings.check()
            self._settings.store.delete(part.name)
        return moved

    def _rewrite(self, part: Part, changes: Mapping[str, Artifact | None], moved: list[Artifact]) -> None:
        """Write a part again; add artefacts of another layout to `moved`.

        Raises:
            _NothingLeft: no video is left in it; it stands as before.
        """
        settings = self._settings
        layout = layout_of(settings.store, part.name)
        dropped = {video for video, artifact in changes.items() if artifact is None}
        with new_part(settings.store, part.name, layout, settings.check) as writer:
            for artifact in filter(None, changes.values()):
                fits = self._take(artifact, lambda of: writer if of.digest == layout.digest else None)
                if fits is False:
                    moved.append(artifact)
                if fits is not None:
                    dropped.add(artifact.video)
            writer.keep(settings.store, part.name, dropped)
            if not writer.videos:
                raise _NothingLeft

    def append(self, artifact: Artifact) -> None:
        """Add the rows of an artefact that has none here."""
        self._take(artifact, self._part_for)

    def _take(self, artifact: Artifact, part_for: Callable[[Layout], PartWriter | None]) -> bool | None:
        """Write the rows of an artefact; False if there is no part for its layout, None if it can't be taken now."""
        try:
            with video_table(self._settings.store, artifact, self._component) as table:
                part = part_for(table.layout)
                if part is not None:
                    part.take(table)
        except NotTaken as refusal:
            self._refused[artifact.video] = f"{self._component.name}: {refusal}"
            return None
        if part is not None and part.nbytes >= self._settings.part_bytes:
            self._publish(part)
        return part is not None

    def _part_for(self, layout: Layout) -> PartWriter:
        """Return the part of a layout that is not full; one that stands already is written again with more rows."""
        if layout.digest not in self._open:
            own, settings = ExitStack(), self._settings
            self._everything.push(own)
            standing = self._not_full(layout)
            longer = standing is not None and is_mostly_rows(settings.store, standing.name)
            name = self._new_name() if standing is None else standing.name
            make = longer_part if longer else new_part
            part = own.enter_context(make(settings.store, name, layout, settings.check))
            if standing is not None and not longer:
                part.keep(settings.store, name, ())
            self._open[layout.digest] = part, own
        return self._open[layout.digest][0]

    def _not_full(self, layout: Layout) -> Part | None:
        """Return the last part of a layout as it stands now, if there is room in it."""
        store = self._settings.store
        last = next((part for part in reversed(self._parts) if part.layout == layout.digest), None)
        nbytes = None if last is None else store.size(last.name)
        return last if nbytes is not None and nbytes < self._settings.part_bytes else None

    def _new_name(self) -> str:
        name = f"{self._folder}/part-{self._next:06d}-{self._settings.run_id}.parquet"
        self._next += 1
        return name

    def _publish(self, part: PartWriter) -> None:
        """Let a part appear now, if it is one that `append` fills."""
        opened = self._open.get(part.layout.digest)
        if opened is not None and opened[0] is part:
            opened[1].close()
            del self._open[part.layout.digest]


class _NothingLeft(Exception):
    """A part has lost its last video."""
