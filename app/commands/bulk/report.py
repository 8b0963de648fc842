"""`gateway bulk report`: a run as one HTML file."""

from __future__ import annotations

import argparse
import sys

from app import __version__, extras
from app.bulk.report.data import report_data
from app.bulk.summary import summarised
from app.commands.bulk.reading import OK, USAGE, Ended, plainly
from app.media.npz import atomically
from app.videos.names import shown
from app.videos.stores.opened import open_store


def report(parsed: argparse.Namespace) -> int:
    """Run the command; answers the exit code."""
    lacking = extras.missing("bench")
    if lacking is not None:
        print(f"gateway bulk report: {lacking}", file=sys.stderr)
        return USAGE
    from app.bulk.report.page import page  # noqa: PLC0415  # an extra: matplotlib

    try:
        with plainly("report", parsed.output):
            store = open_store(parsed.output)
            summary, recorded = summarised(store)
            document = page(shown(store.url), summary, report_data(recorded), __version__)
            with atomically(parsed.to) as file:
                file.write(document.encode())
    except Ended as ended:
        return ended.code
    print(f"wrote {shown(parsed.to)}")
    return OK
