"""The figures of a run, and the promises that it broke."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from support.cluster.deeds import Deed
from support.cluster.frames import CONFLICT, Camera, Frames, Session, Tracks
from support.cluster.jobs import Jobs
from support.cluster.records import NO_ANSWER, NO_PROBLEM, Record

_REFUSED = "refused without a cause"
_ACCEPTING = "idempotency_key_in_use"
# Kinds of request that a data service's absence may refuse, and the problem's code.
_NEEDS = {
    "redis": ({"session"}, {"sessions_unavailable"}),
    "postgres": ({"submit", "poll", "artifact"}, {"videos_unavailable"}),
}


@dataclass(frozen=True, slots=True)
class Run:
    """All that a load and its disturbances left; `listed`: the jobs that the service shows at the end."""

    records: Sequence[Record]
    deeds: Sequence[Deed]
    frames: Frames
    cameras: Sequence[Camera]
    expected: Sequence[Tracks]
    jobs: Jobs
    listed: int


def _disturbed(record: Record) -> bool:
    """Return whether it failed, and not by the caller's doing: a frame that came late, a job that is being accepted."""
    return record.failed and record.code not in (CONFLICT, _ACCEPTING)


def _refused(record: Record) -> bool:
    """Return whether a gateway said in a problem that it can't serve now, as it does when the machine is too busy."""
    return record.status in (429, 503, 504) and record.code != NO_PROBLEM


def cause(record: Record, deeds: Sequence[Deed]) -> Deed | None:
    """Return the deed that a failed request may be put down to; None: nothing excuses it."""
    return next((deed for deed in deeds if _excuses(deed, record)), None)


def _excuses(deed: Deed, record: Record) -> bool:
    if deed.part == "balancer":  # a reload ends idle connections, on which a request may be under way
        return record.status == NO_ANSWER and record.overlaps(deed.began, deed.over)
    if deed.action != "kill":
        return False  # nobody notices that a gateway is taken out
    if deed.part in _NEEDS:
        kinds, codes = _NEEDS[deed.part]
        return record.kind in kinds and record.code in codes and record.overlaps(deed.began, deed.over)
    if not record.overlaps(deed.began, deed.noticed):
        return False
    if deed.part.startswith("gateway"):
        return record.served in (deed.part, "")
    return record.kind in ("frame", "session") and record.status == 503


def figures(run: Run) -> dict[str, Any]:
    """Everything that is counted, by name."""
    causes = {id(record): cause(record, run.deeds) for record in run.records if _disturbed(record)}
    unexcused = [record for record in run.records if _disturbed(record) and causes[id(record)] is None]
    failed = Counter(f"{deed.part} ({deed.action})" for deed in causes.values() if deed is not None)
    began = min(record.began for record in run.records)
    span = max(record.ended for record in run.records) - began
    sessions = [session for camera in run.cameras for session in camera.sessions]
    reset = [session for session in sessions if _lost_redis(session, run.deeds)]
    broken = [text for one in sessions if one not in reset for text in one.broken(run.expected)]
    jobs = run.jobs.jobs
    accepted = sum(bool(job.ids) for job in jobs)

    def told(one: Record) -> str:
        times = f"{one.began - began:.2f} to {one.ended - began:.2f} s"
        return f"{one.kind} {one.status} {one.code} by {one.served or 'none'}, {times}"

    return {
        "seconds": round(span, 1),
        "requests": len(run.records),
        "requests per second": round(len(run.records) / span, 1),
        "requests by kind": dict(Counter(record.kind for record in run.records)),
        "requests by gateway": dict(Counter(record.served or "none" for record in run.records)),
        "right answers to single frames": run.frames.right,
        "answers by version of the branch with two": dict(run.frames.versions),
        "wrong answers": run.frames.wrong[:5],
        "false provenance": run.frames.false[:5],
        "answers that name no weights": run.frames.unknown,
        "disturbances": [_told(deed) for deed in run.deeds],
        "failed requests by cause": dict(failed),
        _REFUSED: [told(record) for record in unexcused if _refused(record)],
        "failed requests without a cause": [told(record) for record in unexcused if not _refused(record)],
        "sessions": len(sessions),
        "frames of sessions answered": sum(len(session.tracks) for session in sessions),
        "frames of sessions that came after a later one": sum(len(session.late()) for session in sessions),
        "frames of sessions turned around": [
            f"{session.name}: {session.turned()}" for session in sessions if session.turned()
        ][:5],
        "sessions that Redis forgot": len(reset),
        "session ids broken": broken[:5],
        "jobs accepted": accepted,
        "submissions told to wait for the first with their key": sum(
            record.code == _ACCEPTING for record in run.records
        ),
        "jobs lost": [text for job in jobs for text in job.lost][:5]
        + [f"{job.ids}: {job.states} {job.error}" for job in jobs if job.states[-1:] != ["done"]][:5],
        "jobs made or finished twice": [
            f"{job.ids}: {len(job.manifests)} results" for job in jobs if len(job.ids) > 1 or len(job.manifests) > 1
        ][:5]
        + ([] if run.listed == accepted else [f"{run.listed} jobs are listed, {accepted} were accepted"]),
        "artefacts that are wrong": [f"{job.ids}: {name}" for job in jobs for name in job.damaged][:5],
        "artefacts of all jobs compared": all(job.compared for job in jobs),
    }  # fmt: skip


# Whatever is listed under these names is a promise that was broken.
PROMISES = (
    "wrong answers", "false provenance", _REFUSED, "failed requests without a cause",
    "frames of sessions turned around",
    "session ids broken", "jobs lost",
    "jobs made or finished twice", "artefacts that are wrong",
)  # fmt: skip


def broken_promises(found: dict[str, Any], refused: int = 0) -> dict[str, Any]:
    """Return the promises that a run broke, with what shows it; empty if it broke none.

    `refused`: requests that may be refused without a cause, by a machine that others use, too.
    """
    excused = len(found[_REFUSED]) <= refused
    return {name: found[name] for name in PROMISES if found[name] and not (name == _REFUSED and excused)}


def _lost_redis(session: Session, deeds: Sequence[Deed]) -> bool:
    return any(
        deed.part == "redis" and session.began <= deed.over and deed.began <= session.ended for deed in deeds
    )


def _told(deed: Deed) -> str:
    noticed, over = deed.noticed - deed.began, deed.over - deed.began
    return f"{deed.part} {deed.action}: noticed after {noticed:.2f} s, over after {over:.2f} s"
