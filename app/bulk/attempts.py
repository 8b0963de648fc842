"""Attempts at videos and deaths of workers, counted across the processes that drive a run.

A run keeps a small document, `run/attempts/<run>.json`, with the videos that are under way and those that have killed
a worker. A driver that is killed leaves its document behind; the next one reads it and continues its counts.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass, replace

from app.videos.stores.base import ArtifactStore

_log = logging.getLogger(__name__)
FOLDER = "run/attempts"
KILLS = 2  # workers that a video may kill before it is set aside


@dataclass(frozen=True, slots=True)
class Count:
    """`begun`: attempts at the video; `kills`: workers that died with it."""

    begun: int = 0
    kills: int = 0


class Attempts:
    """Counts of the videos that have no result yet. Safe to use from several threads."""

    def __init__(self, store: ArtifactStore, run_id: str) -> None:
        self._store = store
        self._name = f"{FOLDER}/{run_id}.json"
        self._counts: dict[str, Count] = {}
        self._earlier: dict[str, dict[str, Count]] = {}
        self._changed = False
        self._written = False
        self._counting = threading.Lock()
        self._publishing = threading.Lock()

    def resume(self) -> None:
        """Take over the counts that earlier drivers have left behind.

        Raises:
            OSError: the store can't be read.
        """
        for stored in list(self._store.list(FOLDER)):
            if stored.name != self._name:
                self._earlier[stored.name] = self._read(stored.name)

    def begin(self, name: str) -> int:
        """Count an attempt; return its number, from 1."""
        with self._counting:
            count = self._known(name)
            self._counts[name] = replace(count, begun=count.begun + 1)
            self._changed = True
            return count.begun + 1

    def killed(self, name: str) -> bool:
        """Count a worker that died with this video; return True if the video has to be set aside."""
        with self._counting:
            count = self._known(name)
            self._counts[name] = replace(count, kills=count.kills + 1)
            self._changed = True
        try:
            self.publish()
        except OSError as error:
            _log.warning("the attempts can't be written: %s", error)
        return count.kills + 1 >= KILLS

    def settle(self, name: str) -> None:
        """Forget a video that has its result."""
        with self._counting:
            self._changed = self._counts.pop(name, None) is not None or self._changed
            for counts in self._earlier.values():
                self._changed = counts.pop(name, None) is not None or self._changed

    def publish(self) -> None:
        """Write the counts, if they have changed, and remove the documents of earlier drivers that say nothing more.

        Raises:
            OSError: they can't be written.
        """
        with self._publishing:
            with self._counting:
                if not self._changed:
                    return
                videos = {name: [count.begun, count.kills] for name, count in self._counts.items()}
                over = [name for name, counts in self._earlier.items() if not counts]
                self._changed = False
            try:
                self._write(videos, over)
            except OSError:
                self._changed = True
                raise

    def _write(self, videos: dict[str, list[int]], over: list[str]) -> None:
        if videos:
            self._store.put(self._name, json.dumps({"videos": videos}).encode())
            self._written = True
        elif self._written:
            self._store.delete(self._name)
            self._written = False
        for name in over:
            self._store.delete(name)
            with self._counting:
                self._earlier.pop(name, None)

    def _known(self, name: str) -> Count:
        if name in self._counts:
            return self._counts[name]
        found = [counts[name] for counts in self._earlier.values() if name in counts]
        return Count(max((c.begun for c in found), default=0), max((c.kills for c in found), default=0))

    def _read(self, name: str) -> dict[str, Count]:
        """Return the counts of a document; none of one that is damaged or has gone."""
        try:
            with self._store.open(name) as file:
                videos = json.load(file)["videos"]
            return {video: Count(int(begun), int(kills)) for video, (begun, kills) in videos.items()}
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return {}
