"""Reading the rows of runs: the newest of each video counts, and damaged lines do no harm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from support.bulk_outputs import at, publish

from app.bulk.outcomes import Outcome
from app.bulk.recorded import Recorded
from app.videos.stores.folder import FolderStore

ROW = Outcome("a.mp4", "/videos/a.mp4", "done", attempts=1, frames=10, seconds=1.0, finished_at=at(1))


def test_the_newest_row_counts_in_whatever_segment_it_is(tmp_path: Path) -> None:
    """By the time of its end, not by the name of the segment."""
    store = FolderStore(tmp_path)
    publish(store, "b", replace(ROW, frames=20, finished_at=at(5)), replace(ROW, name="b.mp4"))
    publish(store, "c", replace(ROW, frames=30, finished_at=at(3)))
    recorded = Recorded.of(store)
    assert {row.name: row.frames for row in recorded.newest()} == {"a.mp4": 20, "b.mp4": 10}
    assert (len(recorded), recorded.rows, recorded.damaged) == (2, 3, 0)


def test_the_newest_analysis_is_found_behind_later_rows(tmp_path: Path) -> None:
    """A row that skips a video, or says that it failed, tells of no new artefacts."""
    store = FolderStore(tmp_path)
    publish(store, "a", ROW, replace(ROW, state="skipped", finished_at=at(9)))
    publish(
        store, "b", replace(ROW, state="failed", finished_at=at(12)), replace(ROW, name="f", state="failed")
    )
    recorded = Recorded.of(store)
    assert [row.state for row in recorded.newest()] == ["failed", "failed"]
    assert [row.state for row in recorded.worked()] == ["done"]
    assert (recorded.written("a.mp4"), recorded.written("f")) == (at(1), None)


def test_damaged_lines_are_counted_and_passed_over(tmp_path: Path) -> None:
    """Cut off, of another shape, or with a name that leads out of the output."""
    store = FolderStore(tmp_path)
    good = ROW.to_json()
    lines = [
        good[:40], "[]", "{}", '{"name": 1, "uri": "x", "state": "done"}', good.replace("a.mp4", "../a.mp4"), "\xff",
        good.replace('"frames":10', '"frames":"many"'), good.replace('"seconds":1.0', '"seconds":NaN'),
        good.replace('"frames":10', f'"frames":{10**30}'), good.replace('"code":null', '"code":"\\ud800"'),
        "[" * 100_000, good,
    ]  # fmt: skip
    store.put("run/outcomes/r-000000.jsonl", "\n".join(lines).encode("latin-1"))
    store.put("run/outcomes/notes.txt", b"not a segment")
    recorded = Recorded.of(store)
    assert [row.name for row in recorded.newest()] == ["a.mp4"]
    assert recorded.damaged == len(lines) - 1
