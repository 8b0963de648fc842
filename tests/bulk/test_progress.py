"""Views of a run: what a person sees in a terminal, and the lines at the end."""

from __future__ import annotations

import io

from rich.console import Console

from app.bulk.driver import Totals
from app.bulk.outcomes import Outcome
from app.commands.bulk.live import LiveView
from app.commands.bulk.progress import Progress, summary


def progress(*outcomes: Outcome, expected: int | None = None) -> Progress:
    made, totals = Progress(most=3), Totals(expected=expected)
    for outcome in outcomes:
        totals.add(outcome)
        made.add(outcome, totals)
    return made


def drawn(made: Progress, width: int = 100) -> str:
    console = Console(file=io.StringIO(), force_terminal=False, width=width)
    console.print(LiveView(made, console).drawn())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


ROWS = [
    *(Outcome(f"{n}.mp4", "u", "done", frames=10, seconds=float(n)) for n in range(6)),
    Outcome("[red]x[/nonsense].mp4", "u", "failed", "invalid_video", "no [bold] frame"),
    Outcome("old.mp4", "u", "skipped", frames=7),
]


def test_the_live_view_shows_counts_speed_and_names_as_they_are() -> None:
    """Done, failed and left; the slowest first; what looks like markup in a name or a reason is text."""
    text = drawn(progress(*ROWS, expected=20))
    assert "6 done  0 partial  1 skipped  1 failed  0 poison  12 left" in text
    assert [line for line in text.splitlines() if "frames/s" in line and "━" not in line]
    assert "[red]x[/nonsense].mp4: invalid_video: no [bold] frame" in text
    slowest = text[text.index("slowest") :]
    assert slowest.index("5.mp4") < slowest.index("4.mp4") < slowest.index("3.mp4")
    assert "2.0 s" not in slowest


def test_nothing_is_known_at_first() -> None:
    """Before the first row, and before the videos are counted, the view says so; a narrow terminal is no fault."""
    assert "counting" in drawn(progress())
    assert progress().left_s is None
    assert "counting" in drawn(progress(*ROWS), width=20)


def test_the_time_left_counts_work_alone() -> None:
    """Videos that were skipped take no time, and don't make the rest look short."""
    times = iter((0.0, 8.0, 8.0))
    made, totals = Progress(clock=lambda: next(times)), Totals(expected=30)
    for outcome in (ROWS[0], ROWS[1], *ROWS[-1:] * 18):
        totals.add(outcome)
        made.add(outcome, totals)
    assert made.left == 10
    assert made.left_s == 10 * 8 / 2


def test_the_summary_is_short_however_many_failed() -> None:
    """The latest faults, the number of the others, and where they are listed."""
    failed = [Outcome(f"{n}.mp4", "u", "failed", "not_found", "there is no such video") for n in range(9)]
    lines = list(summary(progress(*failed), "out"))
    assert lines[0].startswith("9 videos: 9 failed; 0 frames")
    assert lines[0].endswith("-> out")
    assert lines[1:4] == [f"  failed   {n}.mp4: not_found: there is no such video" for n in (6, 7, 8)]
    assert lines[4:] == ["  and 6 more: gateway bulk status out"]
