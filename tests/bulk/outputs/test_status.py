"""`gateway bulk status`: the numbers of a run from another shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.bulk_outputs import at, begin, publish

from app.bulk.outcomes import Outcome
from app.cli import main
from app.videos.stores.folder import FolderStore


def row(name: str, end: float, **changes: Any) -> Outcome:
    given = {"state": "done", "attempts": 1, "frames": 100, "seconds": 2.0, "finished_at": at(end)}
    return Outcome(name, f"/videos/{name}", **{**given, **changes})


def document(output: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["bulk", "status", str(output), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_counts_pace_and_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten videos in 100 s of 14: four are left, and take 40 s at this pace."""
    store = FolderStore(tmp_path)
    begin(store, 14)
    publish(store, "r1", *(row(f"{number}.mp4", 10 * number + 10) for number in range(8)))
    publish(
        store, "r1b", row("8.mp4", 90, state="failed", code="invalid_video", reason="it is empty"),
        row("9.mp4", 100, seconds=30.0),
    )  # fmt: skip
    found = document(tmp_path, capsys)
    assert found["states"] == {"done": 9, "partial": 0, "skipped": 0, "failed": 1, "poison": 0}
    assert (found["left"], found["frames"], found["profile"]) == (4, 900, "two")
    assert (found["frames_per_s"], found["videos_per_s"]) == (9.0, 0.09)
    assert found["eta_s"] == pytest.approx(4 / 0.09, abs=0.01)
    assert found["slowest"][0] == {"name": "9.mp4", "seconds": 30.0, "frames": 100}
    assert found["failing"] == [
        {"code": "invalid_video", "count": 1, "examples": [{"name": "8.mp4", "reason": "it is empty"}]}
    ]


def test_the_pace_is_that_of_the_last_minutes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An hour's break in the middle does not count."""
    store = FolderStore(tmp_path)
    begin(store, None)
    publish(store, "r1", row("old.mp4", 10), *(row(f"{n}.mp4", 3600 + 60 * n) for n in range(11)))
    found = document(tmp_path, capsys)
    assert found["videos_per_s"] == pytest.approx(11 / 600, abs=1e-3)
    assert (found["left"], found["eta_s"]) == (None, None)


def test_rows_of_an_earlier_command_are_not_taken_for_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Videos that the last command has not looked at yet are left."""
    store = FolderStore(tmp_path)
    publish(store, "r0", row("a.mp4", -500), row("b.mp4", -400))
    begin(store, 3)
    publish(store, "r1", row("a.mp4", 1, state="skipped"))
    found = document(tmp_path, capsys)
    assert (found["left"], found["states"]["done"], found["states"]["skipped"]) == (2, 1, 1)


def test_lines_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind of fact has a line; a name can't break one."""
    store = FolderStore(tmp_path)
    begin(store, 3, shard="1/4")
    bad = row("b\n\x1b[31m.mp4", 20, state="poison", code="poison", reason="it killed its worker twice")
    publish(store, "r1", row("a.mp4", 10), bad)
    store.put("run/outcomes/x.jsonl", b"{damaged\n")
    assert main(["bulk", "status", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "run", "videos", "frames", "pace", "newest", "slowest", "failing", r"b\n\x1b[31m.mp4:", "damaged",
    ]  # fmt: skip
    assert "shard 1/4" in lines[0]
    assert "1 left" in lines[1]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"entries": "many", "begun_at": 3, "profile": null}']
)
def test_a_damaged_document_of_the_command_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    """The rows are still counted."""
    store = FolderStore(tmp_path)
    publish(store, "r1", row("a.mp4", 10))
    store.put("run/run.json", content)
    assert document(tmp_path, capsys)["states"]["done"] == 1
