"""Bring the tables of an output up to date with what is finished; also while a run goes on.

Readers see whole files only, and the rows of each finished video once. Memory holds a row group, and some numbers per
video.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from app.bulk.driver import VIDEOS
from app.bulk.layout import RUN, TABLES
from app.bulk.outcomes import Outcome
from app.bulk.recorded import Recorded
from app.bulk.tables.dataset import Dataset, Settings
from app.bulk.tables.index import write_index
from app.bulk.tables.lock import Busy, TablesLock
from app.bulk.tables.rows import Artifact
from app.bulk.tables.state import read_state, write_state
from app.videos.components.base import Component
from app.videos.manifest import NAME
from app.videos.stores.base import ArtifactStore
from app.videos.stores.folder import remove_unfinished
from app.videos.verification.documents import Document, NotOurs, Refused, parsed

PART_BYTES = 256 << 20
_MOST_REASONS = 100
_PAUSE_S = 0.2
Kinds = Mapping[str, type[Component]]


@dataclass(slots=True)
class Updated:
    """The result of an update.

    `videos` are in the index, `finished` of them have artefacts, `changed` were put into the tables now, and `waiting`
    could not be: `reasons` has some of them with the reason. `damaged` lines of the run's rows were passed over.
    """

    videos: int = 0
    finished: int = 0
    changed: int = 0
    waiting: int = 0
    damaged: int = 0
    reasons: dict[str, str] = field(default_factory=dict)


class Tables:
    """The tables of one output.

    Args:
        store: the output.
        components: every kind of component, by name; artefacts of others have no table.
        run_id: part of the names of new files.
        part_bytes: files are about as long; a video that is longer has one of its own.
    """

    def __init__(
        self, store: ArtifactStore, components: Kinds, run_id: str, *, part_bytes: int = PART_BYTES
    ) -> None:
        self._store = store
        self._components = components
        self._run_id = run_id
        self._part_bytes = part_bytes

    def update(self, patience_s: float = 0.0) -> Updated:
        """Write `index.parquet`, and the rows of all videos that were finished since the last time.

        Args:
            patience_s: how long to wait for another process that writes the tables.

        Raises:
            Busy: another process is at it.
            OSError: the output can't be read or written, or a part is damaged.
        """
        limit = time.monotonic() + patience_s
        while True:
            try:
                return self._update()
            except Busy:
                if time.monotonic() > limit:
                    raise
                time.sleep(_PAUSE_S)

    def _update(self) -> Updated:
        with TablesLock(self._store).held() as lock:
            for folder in (RUN, TABLES):
                remove_unfinished(self._store.within(folder))
            recorded = Recorded.of(self._store)
            write_index(recorded)
            return _Update(self._store, self._components, recorded, self._new(lock)).run()

    def _new(self, lock: TablesLock) -> Settings:
        return Settings(self._store, self._run_id, self._part_bytes, lock.check)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A finished video that the tables don't have as it is now."""

    id: str | None
    mark: str


class _Plan:
    """The work of an update, by component: rows to replace, and those to add later; `fresh` videos have none yet."""

    def __init__(self, components: Iterable[str]) -> None:
        self.changes: dict[str, dict[str, Artifact | None]] = {name: {} for name in components}
        self.later: dict[str, list[Artifact]] = {name: [] for name in self.changes}
        self.fresh: list[str] = []

    def add(self, video: str, held: Mapping[str, str], artifacts: Mapping[str, Artifact]) -> None:
        """Compare the marks of the rows that a video has with its artefacts."""
        for name, mark in held.items():
            artifact = artifacts.get(name)
            if artifact is None or artifact.mark != mark:
                self.changes[name][video] = artifact
        for name in artifacts.keys() - held.keys():
            self.later[name].append(artifacts[name])


class _Update:
    """One update."""

    def __init__(
        self, store: ArtifactStore, components: Kinds, recorded: Recorded, settings: Settings
    ) -> None:
        self._store = store
        self._components = components
        self._recorded = recorded
        self._settings = settings
        self._done = read_state(store)
        self._updated = Updated(videos=len(recorded), damaged=recorded.damaged)

    def run(self) -> Updated:
        pending = dict(self._pending())
        refused: dict[str, str] = {}
        if pending:
            with ExitStack() as everything:
                settings = self._settings
                datasets = {
                    name: Dataset(settings, kind, pending, refused, everything)
                    for name, kind in self._components.items()
                }
                self._write(pending, datasets, refused)
            taken = {video: one.mark for video, one in pending.items() if video not in refused}
            self._updated.changed = len(taken)
            write_state(self._store, {**self._done, **taken})
        self._updated.waiting = len(refused)
        self._updated.reasons = dict(list(refused.items())[:_MOST_REASONS])
        return self._updated

    def _pending(self) -> Iterator[tuple[str, _Pending]]:
        for outcome in self._recorded.newest():
            mark = self._mark(outcome)
            self._updated.finished += mark is not None
            if mark is not None and self._done.get(outcome.name) != mark:
                yield outcome.name, _Pending(outcome.id, mark)

    def _mark(self, outcome: Outcome) -> str | None:
        """Return a text that changes with a video's artefacts; None if there are none."""
        written = self._recorded.written(outcome.name)
        if written is not None:
            return written
        if outcome.state != "skipped":
            return None
        return " ".join(map(str, (outcome.sha256, outcome.config_hash, outcome.model_signature)))

    def _write(
        self, pending: Mapping[str, _Pending], datasets: Mapping[str, Dataset], refused: dict[str, str]
    ) -> None:
        """Replace the rows that are there, then add those of new videos."""
        plan = _Plan(datasets)
        for video, one in pending.items():
            held = {name: mark for name, dataset in datasets.items() if (mark := dataset.mark(video))}
            if not held:
                plan.fresh.append(video)
                continue
            artifacts = self._artifacts(video, one, refused)
            if artifacts is not None:
                plan.add(video, held, artifacts)
        for name, dataset in datasets.items():
            for artifact in (*dataset.replace(plan.changes[name]), *plan.later[name]):
                dataset.append(artifact)
        for video in plan.fresh:
            for name, artifact in (self._artifacts(video, pending[video], refused) or {}).items():
                datasets[name].append(artifact)

    def _artifacts(
        self, video: str, pending: _Pending, refused: dict[str, str]
    ) -> dict[str, Artifact] | None:
        """Return the artefacts that a video's manifest lists, by component; None if there is no manifest to use now."""
        folder = f"{VIDEOS}/{video}"
        try:
            with self._store.open(f"{folder}/{NAME}") as file:
                document = parsed(file.read())
        except FileNotFoundError:
            refused[video] = "it has no manifest"
        except NotOurs:
            refused[video] = "its manifest is another program's"
        except Refused as error:
            refused[video] = str(error)
        else:
            return dict(self._listed(document, video, pending))
        return None

    def _listed(self, document: Document, video: str, pending: _Pending) -> Iterator[tuple[str, Artifact]]:
        for name, kind in self._components.items():
            row = document.artifact(f"{kind.name}/{kind.artifact}")
            if row is not None:
                file = f"{VIDEOS}/{video}/{row.name}"
                run_id = row.run_id or document.run_id
                yield name, Artifact(video, pending.id, run_id, file, row.sha256)
