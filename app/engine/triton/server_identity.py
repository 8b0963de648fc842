"""Detect several servers behind one address, and reloads of models, from what polls and answers say.

A balancer that works per call, or a name with several addresses, sends polls and inferences to different servers.
Nothing in Triton's protocol names a server, but two of them contradict each other: a model's version goes back and
forth, its counters fall without starting at zero, its last inference moves into the past, or our own runs are missing.

Pure: no I/O, no clock. `now` is in seconds on the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Counters = tuple[
    int, int
]  # inferences since the model was loaded, time of the last one (ms, the server's clock)

LOOKS = 5  # in a row that must agree before a model is called identified
EVIDENCE = 3  # contradictions within WINDOW_S that mean several servers
WINDOW_S = 10.0
# After a contradiction so many more looks must agree.
_SUSPICIOUS = -2 * LOOKS
# An answer may be noted here so much later than the server counts its run, or the other way round.
_LAG_S = 0.3
# Fewer missing runs are a doubt, no contradiction: some were noted later still.
_SLACK = 8
# Inferences per second that other clients of the server may make.
_OTHERS_PER_S = 200.0


@dataclass(slots=True)
class _Tally:
    """Own runs of a model that its counter must contain, since the track began.

    `count`, `own`: both at the beginning; `due`: own runs of at least `_LAG_S` ago; `next_at`, `next_own`: the snapshot
    that comes due then; `missing`: runs that the counter lacks, noted at `missing_own` own runs.
    """

    at: float
    count: int
    own: int
    due: int
    next_at: float
    next_own: int
    missing: int = 0
    missing_own: int = 0

    @classmethod
    def begin(cls, now: float, count: int, own: int) -> _Tally:
        return cls(now, count, own, own, now, own)

    def lacks(self, now: float, count: int, own: int) -> int:
        """Own runs that the counter lacks at a look."""
        if now - self.at < _LAG_S:
            self.own = self.due = own
        if now - self.next_at >= _LAG_S:
            self.due, self.next_at, self.next_own = self.next_own, now, own
        missing = max(0, self.due - self.own - (count - self.count))
        if missing > self.missing:
            self.missing, self.missing_own = missing, own
        elif own - self.missing_own > _SLACK:
            # No more have gone missing: what did was noted late, and belongs to the time before.
            self.own += missing
            missing = self.missing = 0
        return missing


@dataclass(slots=True)
class _Track:
    """Counters of one model, as of the last look.

    `own`: own runs at the last look; `latest`: the last inference seen so far, also before a reset; `agreed`: looks in
    a row without a contradiction; `fresh`: a new connection since.
    """

    tally: _Tally
    count: int
    own: int
    at: float
    latest: int
    reset: bool = False
    fresh: bool = False
    agreed: int = 1


@dataclass(slots=True)
class _Versions:
    """The version that serves now, since when, and those seen before with the time when each was last seen."""

    current: str
    since: float
    before: dict[str, float] = field(default_factory=dict)


class Identity:
    """Knowledge of the server behind one address. Not thread-safe."""

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}
        self._versions: dict[str, _Versions] = {}
        self._evidence: list[tuple[float, str]] = []

    def look(self, now: float, counters: Mapping[str, Counters], own: Mapping[str, int]) -> set[str]:
        """Compare the counters of all loaded models with the look before.

        Args:
            now: after the counters arrived.
            counters: by model; a model that isn't loaded has none.
            own: runs that this process has finished since it began, by model.

        Returns:
            The models that have been loaded again since, or that another server has.
        """
        for gone in self._tracks.keys() - counters.keys():
            del self._tracks[gone]
        return {name for name, pair in counters.items() if self._changed(name, now, *pair, own.get(name, 0))}

    def observe(self, subject: str, version: str, started: float, now: float) -> None:
        """Note the version of `subject` (a model, or "" for the server itself) that a call at `started` has seen."""
        known = self._versions.get(subject)
        if known is None:
            self._versions[subject] = _Versions(version, now)
        elif known.current != version and started >= known.since:
            if known.before.get(version, now - 2 * WINDOW_S) > now - WINDOW_S:
                what = f"the version of {subject}" if subject else "the server's own version"
                self._suspect(now, f"{what} goes back and forth between {version} and {known.current}")
                self._doubt(self._tracks if not subject else [subject])
            known.before[known.current] = now
            known.current, known.since = version, now

    def identified(self, model: str) -> bool:
        """Tell if enough looks agree on the server that has this model; true where it counts nothing."""
        track = self._tracks.get(model)
        return track is None or track.agreed >= LOOKS

    def settled(self) -> bool:
        """Tell if every model is identified."""
        return all(track.agreed >= LOOKS for track in self._tracks.values())

    def several(self, now: float) -> str | None:
        """The newest contradiction, if there were enough of them lately to mean several servers."""
        self._evidence = [one for one in self._evidence if one[0] > now - WINDOW_S]
        return self._evidence[-1][1] if len(self._evidence) >= EVIDENCE else None

    def doubt(self) -> None:
        """Ask for `LOOKS` more looks: a call failed as if the server were another one."""
        self._doubt(self._tracks, 0)

    def restart(self) -> None:
        """There is a new connection: the next look says if the same server is at its other end."""
        for track in self._tracks.values():
            track.fresh = True
        self._versions.clear()
        self._evidence.clear()

    def _changed(self, name: str, now: float, count: int, last: int, own: int) -> bool:
        track = self._tracks.get(name)
        if track is None:
            self._tracks[name] = _Track(_Tally.begin(now, count, own), count, own, now, last)
            return False
        backwards = 0 < last < track.latest or (track.reset and 0 < last == track.latest)
        missing = track.tally.lacks(now, count, own)
        reset = count < track.count or missing > _SLACK
        if track.fresh:
            self._tracks[name] = _Track(_Tally.begin(now, count, own), count, own, now, last)
            return reset or backwards
        # A model that has been loaded again counts from zero; more runs than these can't have happened since.
        most = own - track.own + _SLACK
        if backwards or (reset and count > most + _OTHERS_PER_S * (now - track.at)):
            self._suspect(now, f"the counters of {name} contradict each other")
        if reset:
            track.tally = _Tally.begin(now, count, own)
            track.reset, track.agreed = last < track.latest, 0
        track.count, track.own, track.at = count, own, now
        track.agreed = track.agreed + 1 if reset or not missing else min(0, track.agreed)
        if backwards or (reset and count > most):
            track.agreed = _SUSPICIOUS
        elif last > track.latest:
            track.latest, track.reset = last, False
        return reset or backwards

    def _suspect(self, now: float, what: str) -> None:
        """Note a contradiction; all that one look shows are one."""
        if not self._evidence or self._evidence[-1][0] != now:
            self._evidence.append((now, what))

    def _doubt(self, models: Iterable[str], agreed: int = _SUSPICIOUS) -> None:
        for name in models:
            if name in self._tracks:
                self._tracks[name].agreed = min(agreed, self._tracks[name].agreed)
