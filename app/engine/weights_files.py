"""Files of served models, checked on separate threads, so that a hanging mount never blocks a request.

One thread looks at stamps and notes several times a second, another computes digests. A file that takes longer than the
limit is left to its thread, which may never come back, and a new thread goes on with the others.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.engine.base import Weights
from app.engine.weights import WeightsBook, files_digest, is_note
from routing.provenance import UNKNOWN

_log = logging.getLogger(__name__)
Key = tuple[str, str]  # model and version
# (name, inode, nanoseconds of the last change, bytes) of every file that holds weights.
Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """One version of a model as it lies there.

    `stamp`: of its files, or of what the manifest says where no file can be seen; empty: nothing is known.
    `weights`: what is noted, if that is believed or its digest is that of the files; otherwise all `unknown`.
    """

    stamp: Stamp
    weights: Weights


class _Hand:
    """Thread whose work may block, with its current task and the task's start."""

    def __init__(self, work: Callable[[_Hand], None], name: str) -> None:
        self.at: Key | None = None
        self.since = 0.0
        self.dismissed = False
        threading.Thread(target=work, args=(self,), name=name, daemon=True).start()

    def begin(self, key: Key) -> None:
        self.since = time.monotonic()
        self.at = key

    def beat(self) -> None:
        self.since = time.monotonic()

    def stuck(self, limit_s: float) -> bool:
        return self.at is not None and time.monotonic() - self.since > limit_s


class WeightsFiles:
    """Facts of the models that somebody has asked for.

    A note (weights.json) is believed if it was written after the files that it speaks of and nothing speaks against it;
    otherwise the digest is computed. What the manifest says of files that can be seen is always compared with them.

    Args:
        book: reads notes and the manifest.
        changed: called after facts have changed.
        interval_s: between two looks.
        limit_s: time for one file; then it is `unknown` until its thread comes back.
        threads: that may be lost to files that never come back.
    """

    def __init__(
        self,
        book: WeightsBook,
        changed: Callable[[], None],
        interval_s: float = 0.25,
        limit_s: float = 5.0,
        threads: int = 8,
    ) -> None:
        self._book = book
        self._changed = changed
        self._interval_s, self._limit_s = interval_s, limit_s
        self._spare = threads
        self._lock = threading.Lock()
        self._wanted: dict[Key, None] = {}
        self._facts: dict[Key, Facts] = {}
        self._looked: dict[Key, float] = {}
        self._stuck: set[Key] = set()
        self._digests: dict[Key, tuple[Stamp, str]] = {}
        # Every digest that was ever claimed, the files that lay there at first, and if it was believed of them.
        self._claims: dict[Key, dict[str, tuple[Stamp, bool]]] = {}
        self._to_hash: deque[tuple[Key, Stamp]] = deque()
        self._wake = threading.Event()
        self._wake_hash = threading.Event()
        self._news = threading.Condition(self._lock)
        self._closed = False
        self._hands = [_Hand(self._look_all, "weights-files"), _Hand(self._hash_all, "weights-digests")]

    def of(self, model: str, version: str, since: float = 0.0) -> Facts | None:
        """Facts of a look that began after `since` (monotonic clock); None: there are none yet, or none can be had."""
        key = (model, version)
        if key not in self._wanted:
            self._wanted[key] = None
            self._wake.set()
        if self._looked.get(key, -1.0) < since:
            self._wake.set()
            return None
        return None if key in self._stuck else self._facts.get(key)

    def wait(self, seconds: float) -> None:
        """Return once everything that was asked for has been looked at, or after `seconds`."""
        limit = time.monotonic() + seconds
        with self._news:
            while self._outstanding() and (left := limit - time.monotonic()) > 0:
                self._news.wait(left)

    def tend(self) -> None:
        """Replace threads that are stuck; to be called now and then."""
        for index, hand in enumerate(self._hands):
            if not hand.stuck(self._limit_s) or hand.dismissed:
                continue
            key = hand.at
            with self._lock:
                if key is None or key in self._stuck:
                    continue
                self._stuck.add(key)
                self._spare -= 1
            _log.warning(
                "the files of %s don't answer: what is known of them is dropped until they do", key[0]
            )
            if self._spare >= 0:
                hand.dismissed = True
                work, name = (
                    (self._look_all, "weights-files") if index == 0 else (self._hash_all, "weights-digests")
                )
                self._hands[index] = _Hand(work, name)

    def close(self) -> None:
        """End the threads; one that is stuck ends when it comes back."""
        self._closed = True
        self._wake.set()
        self._wake_hash.set()

    def _outstanding(self) -> bool:
        return any(
            key not in self._facts or self._pending(key) for key in self._wanted if key not in self._stuck
        )

    def _pending(self, key: Key) -> bool:
        return any(waiting == key for waiting, _ in self._to_hash) or self._hands[1].at == key

    def _look_all(self, hand: _Hand) -> None:
        while not self._closed:
            for key in list(self._wanted):
                if key in self._stuck:
                    continue
                self._step(hand, key, self._look)
                if hand.dismissed or self._closed:
                    return
            self._wake.wait(self._interval_s)
            self._wake.clear()

    def _hash_all(self, hand: _Hand) -> None:
        while not self._closed:
            while self._to_hash:  # first, since a thread that is stuck may have taken the signal for the rest
                key, stamp = self._to_hash.popleft()
                self._step(hand, key, lambda key, stamp=stamp: self._hash(hand, key, stamp))  # type: ignore[misc]  # bound now
                if hand.dismissed or self._closed:
                    return
            self._wake_hash.wait()
            self._wake_hash.clear()

    def _step(self, hand: _Hand, key: Key, work: Callable[[Key], None]) -> None:
        hand.begin(key)
        try:
            work(key)
        except Exception:  # noqa: BLE001  # a defect here mustn't end the thread, and with it all knowledge
            _log.exception("the files of %s could not be looked at", key[0])
        finally:
            hand.at = None
        if hand.dismissed:
            with self._lock:
                self._stuck.discard(key)
                self._spare += 1
            self._wake.set()
        with self._news:
            self._news.notify_all()

    def _look(self, key: Key) -> None:
        began = time.monotonic()
        repository, (model, version) = self._book.repository, key
        stamp, changed_at = ((), 0) if repository is None else _stamp(repository / model / version)
        noted, written = self._book.note(model, version)
        if not stamp:
            seen: Stamp = () if noted.digest == UNKNOWN else ((noted.digest, 0, 0, 0),)
            facts = Facts(seen, noted)
        elif self._true(key, stamp, noted.digest, written is not None and written >= changed_at):
            facts = Facts(stamp, noted)
        else:
            facts = Facts(stamp, Weights())
        before = self._facts.get(key)
        self._facts[key] = facts
        late = self._looked.get(key, 0.0) == 0.0
        self._looked[key] = began
        if facts != before or late:
            self._changed()

    def _true(self, key: Key, stamp: Stamp, claim: str, newer: bool) -> bool:
        """Return True if the noted digest is trusted, or has been verified for these files."""
        if claim == UNKNOWN:
            return False
        known = self._digests.get(key)
        if known is not None and known[0] == stamp:
            return known[1] == claim
        claims = self._claims.setdefault(key, {})
        if claim not in claims:
            # Files with another claim before: one of the two is about to be replaced.
            claims[claim] = stamp, newer and all(stamp != seen for seen, _ in claims.values())
        if claims[claim] == (stamp, True):
            return True
        if not self._pending(key):
            self._to_hash.append((key, stamp))
            self._wake_hash.set()
        return False

    def _hash(self, hand: _Hand, key: Key, stamp: Stamp) -> None:
        repository = self._book.repository
        if repository is None:
            return
        folder = repository / key[0] / key[1]
        with contextlib.suppress(OSError):
            digest = files_digest(folder, hand.beat)
            if _stamp(folder)[0] == stamp:
                self._digests[key] = stamp, digest
        self._wake.set()


def _stamp(folder: Path) -> tuple[Stamp, int]:
    """The stamp of a version folder, and the last change of any of its files in ns, that of its name included."""
    found, latest = [], 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_note(entry.name):
                    continue
                seen = entry.stat()
                if stat.S_ISREG(seen.st_mode):
                    found.append((entry.name, seen.st_ino, seen.st_mtime_ns, seen.st_size))
                    latest = max(latest, seen.st_ctime_ns, seen.st_mtime_ns)
    except OSError:  # it isn't there, or went while it was looked at
        return (), 0
    return tuple(sorted(found)), latest
