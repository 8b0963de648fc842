"""Rows and attempts of a run, as they lie in the output."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from support.bulk_outputs import at, publish

from app.bulk.attempts import Attempts
from app.bulk.earlier import unfinished
from app.bulk.outcomes import Outcome, OutcomeLog
from app.bulk.recorded import Recorded
from app.videos.stores.folder import FolderStore


def test_rows_are_published_in_segments(tmp_path: Path) -> None:
    """Each segment holds the rows since the last one; nothing new makes no segment."""
    log = OutcomeLog(FolderStore(tmp_path), "20260101T000000Z-abcdef")
    rows = [Outcome(f"{number}\n.mp4", "u", "done", frames=number) for number in range(3)]
    log.add(rows[0])
    log.publish()
    log.publish()
    log.add(rows[1])
    log.add(rows[2])
    log.publish()
    segments = sorted((tmp_path / "run" / "outcomes").iterdir())
    assert [path.name for path in segments] == [
        f"20260101T000000Z-abcdef-{number:06d}.jsonl" for number in range(2)
    ]
    lines = [line for path in segments for line in path.read_text().splitlines()]
    assert [Outcome.from_json(line) for line in lines] == rows


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "{}", '{"state": "done"}', '{"state": "other", "name": "a"}']
)
def test_a_damaged_row_is_refused(line: str) -> None:
    """A cut line is not taken for a result."""
    with pytest.raises(ValueError, match=r"."):
        Outcome.from_json(line)


def test_paths_that_are_no_utf8_are_escaped(tmp_path: Path) -> None:
    """Such a row counts like any other, also one that an older run has written as it was."""
    row = Outcome(
        "a\\xff.mp4", "/v/a\udcff.mp4", "done", finished_at="2026-01-01T00:00:00+00:00", id="\udce9"
    )
    log = OutcomeLog(FolderStore(tmp_path), "2")
    log.add(row)
    log.publish()
    assert "udc" not in next((tmp_path / "run" / "outcomes").iterdir()).read_text()
    older = json.dumps(asdict(replace(row, name="b.mp4")))
    FolderStore(tmp_path).put("run/outcomes/1-000000.jsonl", older.encode())
    recorded = Recorded.of(FolderStore(tmp_path))
    found = [(one.name, one.uri, one.id) for one in recorded.newest()]
    assert found == [(name, "/v/a\\xff.mp4", "\\xe9") for name in ("b.mp4", "a\\xff.mp4")]
    assert recorded.damaged == 0


def test_the_latest_row_of_a_video_counts(tmp_path: Path) -> None:
    """A video that failed and was done later is finished; fields of a later version don't disturb."""
    store = FolderStore(tmp_path)
    for run, states in (("1", ("failed", "failed", "done")), ("2", ("done", "poison", "failed"))):
        log = OutcomeLog(store, run)
        for name, state in zip("abc", states, strict=True):
            log.add(Outcome(name, "u", state))  # type: ignore[arg-type]
        log.publish()
    newer = json.dumps({**json.loads(Outcome("d", "u", "failed").to_json()), "more": 1})
    store.put("run/outcomes/3-000000.jsonl", f"{newer}\n{newer[:20]}".encode())
    assert {name: row.state for name, row in unfinished(store).items()} == {
        "b": "poison", "c": "failed", "d": "failed",
    }  # fmt: skip


def test_the_row_that_was_finished_last_counts_among_shards(tmp_path: Path) -> None:
    """Two drivers run at once, and the one that began first ends last. Everything that reads the rows agrees."""
    store = FolderStore(tmp_path)
    a, b, c = (Outcome(name, "u", "done", finished_at=at(5)) for name in "abc")
    publish(store, "1", replace(a, state="failed"), b, replace(c, state="poison"), replace(c, state="failed"))
    a, b, c = (replace(row, finished_at=at(3)) for row in (a, b, c))
    publish(store, "2", a, replace(b, state="poison"), c)
    assert {name: row.state for name, row in unfinished(store).items()} == {"a": "failed", "c": "failed"}
    assert {row.name: row.state for row in Recorded.of(store).newest()} == {
        "a": "failed", "b": "done", "c": "failed",
    }  # fmt: skip


def test_attempts_of_a_driver_that_died_are_continued(tmp_path: Path) -> None:
    """The next one goes on counting, and removes the document once each of its videos has a result."""
    store = FolderStore(tmp_path)
    first = Attempts(store, "first")
    assert (first.begin("a"), first.begin("b"), first.begin("a")) == (1, 1, 2)
    first.publish()
    store.put("run/attempts/damaged.json", b"{")
    second = Attempts(store, "second")
    second.resume()
    assert second.begin("a") == 3
    assert not second.killed("a")
    second.publish()
    names = {stored.name for stored in store.list("run/attempts")}
    assert "run/attempts/second.json" in names
    assert second.killed("a")
    second.settle("a")
    second.settle("b")
    second.publish()
    assert list(store.list("run/attempts")) == []
