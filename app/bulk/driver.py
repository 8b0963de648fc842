"""A run: entries to an executor, its results into the output. It can be stopped, killed, and run again."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from app.bulk.attempts import Attempts
from app.bulk.earlier import unfinished
from app.bulk.entries import Entry
from app.bulk.executors.base import Executor, MakeWorker
from app.bulk.outcomes import STATES, Outcome, OutcomeLog, State, now, unread
from app.bulk.publishing import Publishing
from app.videos.stores.base import ArtifactStore

RUN_FILE = "run/run.json"
VIDEOS = "videos"
_SEGMENT_S = 5.0
Only = Literal["failed", "poison"]


def new_run_id() -> str:
    """Return the name of a run: the time, so that runs sort, and a random part, since several may begin at once."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class Run:
    """Description of one run. `only`: restrict it to videos that failed, or were set aside, before."""

    run_id: str
    profile: str
    config_hash: str
    sources: Sequence[str]
    executor: str
    shard: str | None = None
    only: Only | None = None
    force: bool = False
    begun_at: str = field(default_factory=now)


@dataclass(slots=True)
class Totals:
    """Counts of a run so far. `expected`: entries in all, None until they are counted."""

    states: dict[State, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    frames: int = 0
    expected: int | None = None
    interrupted: bool = False

    @property
    def videos(self) -> int:
        return sum(self.states.values())

    @property
    def failed(self) -> int:
        return self.states["failed"] + self.states["poison"]

    def add(self, outcome: Outcome) -> None:
        self.states[outcome.state] += 1
        self.frames += outcome.frames if outcome.worked else 0


Observe = Callable[[Outcome, Totals], None]


class Driver:
    """Drives one run; `stop` it from any thread, or from the handler of a signal."""

    def __init__(self, store: ArtifactStore, executor: Executor, run: Run) -> None:
        self._store = store
        self._executor = executor
        self._run = run
        self._log = OutcomeLog(store, run.run_id)
        self._attempts = Attempts(store, run.run_id)
        self._unfinished: Mapping[str, Outcome] = {}
        self.totals = Totals()
        self._stopped = False
        self._counted = False

    def stop(self) -> None:
        """Begin no further video and end those under way; `run` returns soon."""
        self._stopped = True
        self._executor.stop()

    def begin(self) -> None:
        """Read what earlier runs have left in the output, and write `run/run.json`.

        Raises:
            OSError: the output can't be read or written.
        """
        self._write_run()
        self._attempts.resume()
        self._unfinished = unfinished(self._store)

    def run(self, entries: Iterable[Entry], make: MakeWorker, observe: Observe) -> Totals:
        """Run all entries; every result is passed to `observe`, on this thread. `begin` comes first.

        Args:
            entries: can be iterated several times; they are also counted.
            make: makes the worker, in each process.
            observe: takes each row and the counts so far.

        Raises:
            OSError: the output can't be written, or a list of videos can't be read.
            RuntimeError: no video can be analysed on this machine, or a list of videos can't be read.
        """
        counting = threading.Thread(target=self._count, args=(entries,), name="counting", daemon=True)
        counting.start()
        with Publishing((self._log.publish, self._attempts.publish, self._publish_count), _SEGMENT_S):
            for outcome in self._executor.run(self._to_run(entries, observe), make, self._attempts):
                self._settle(outcome, observe)
        self.totals.interrupted = self._stopped
        if not self._stopped:
            counting.join()  # the run has read the same lists, so it is about to end
        self._write_run(ended_at=now())
        return self.totals

    def _to_run(self, entries: Iterable[Entry], observe: Observe) -> Iterator[Entry]:
        """Yield the entries for the executor; the rows of all others are written here."""
        for entry in entries:
            before = self._unfinished.get(entry.name)
            if self._stopped:
                return
            if not self._wanted(before):
                continue
            if entry.fault is not None:
                self._settle(unread(entry, "failed", entry.code, entry.fault), observe)
            elif before is not None and before.state == "poison" and not self._again:
                at = now()
                self._settle(replace(before, started_at=at, finished_at=at), observe)
            else:
                yield entry

    @property
    def _again(self) -> bool:
        """True if videos that were set aside are to be tried again."""
        return self._run.force or self._run.only == "poison"

    def _wanted(self, before: Outcome | None) -> bool:
        only = self._run.only
        return only is None or (before is not None and only in ("failed", before.state))

    def _settle(self, outcome: Outcome, observe: Observe) -> None:
        kept = replace(outcome, run_id=self._run.run_id)
        self._log.add(kept)
        self._attempts.settle(kept.name)
        self.totals.add(kept)
        observe(kept, self.totals)

    def _count(self, entries: Iterable[Entry]) -> None:
        """Count the entries in a second pass, so that no list of them is kept."""
        try:
            self.totals.expected = sum(self._wanted(self._unfinished.get(entry.name)) for entry in entries)
        except (OSError, RuntimeError):  # the run itself reads them, too, and says so
            return

    def _publish_count(self) -> None:
        """Write `run/run.json` again once the entries are counted, so that others know how many are left."""
        if self.totals.expected is not None and not self._counted:
            self._write_run()
            self._counted = True

    def _write_run(self, ended_at: str | None = None) -> None:
        totals = self.totals
        document = asdict(self._run) | {
            "entries": totals.expected,
            "ended_at": ended_at,
            "interrupted": totals.interrupted,
            "states": totals.states,
        }
        self._store.put(RUN_FILE, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())
