"""`gateway bulk status`: a run in numbers, from another shell."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from app.bulk.outcomes import STATES
from app.bulk.summary import Summary, as_document, summarised
from app.commands.bulk.reading import OK, Ended, plainly, take_any_name
from app.videos.names import shown
from app.videos.stores.opened import open_store

_MOST_SLOW = 5


def status(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    take_any_name()
    try:
        with plainly("status", parsed.output):
            summary, _ = summarised(open_store(parsed.output))
    except Ended as ended:
        return ended.code
    if parsed.json:
        print(json.dumps(as_document(summary)))
    else:
        for line in _lines(summary, datetime.now(UTC)):
            print(line)
    return OK


def _lines(summary: Summary, now: datetime) -> Iterator[str]:
    run = summary.run
    shard = "" if run.shard is None else f", shard {run.shard}"
    begun = "" if run.begun_at is None else f", begun {_ago(now, run.begun_at)}"
    yield f"run       {run.run_id or 'unknown'}: profile {run.profile or 'unknown'}{shard}{begun}"
    counts = ", ".join(f"{summary.states[state]} {state}" for state in STATES)
    left = "left: not counted yet" if summary.left is None else f"{summary.left} left"
    yield f"videos    {counts}, {left}"
    yield f"frames    {summary.frames} in {timedelta(seconds=round(summary.seconds))} of all workers"
    if summary.frames_per_s is not None and summary.videos_per_s is not None:
        eta = "" if summary.eta_s is None else f", about {timedelta(seconds=round(summary.eta_s))} left"
        yield f"pace      {summary.frames_per_s:.1f} frames/s, {summary.videos_per_s:.2f} videos/s lately{eta}"
    if summary.latest is not None:
        yield f"newest    result {_ago(now, summary.latest)}"
    for one in summary.slowest[:_MOST_SLOW]:
        yield f"slowest   {one.seconds:.1f} s, {one.frames} frames: {shown(one.name)}"
    for reason in summary.reasons:
        yield f"failing   {reason.count} {reason.code}"
        for name, words in reason.examples:
            yield f"            {shown(name)}: {shown(words)}"
    if summary.damaged:
        yield f"damaged   {summary.damaged} rows were passed over"


def _ago(now: datetime, at: datetime) -> str:
    return f"{timedelta(seconds=max(0, round((now - at).total_seconds())))} ago"
