"""A run and those after it: videos set aside and tried again, and rows when the output can't be written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bulk.command import published
from support.bulk.workers import MakeObedient

from app.bulk.driver import Driver, Only, Run, Totals, new_run_id
from app.bulk.entries import Entry
from app.bulk.executors.local import LocalExecutor
from app.bulk.outcomes import Outcome, OutcomeLog
from app.videos.stores.folder import FolderStore


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    made = LocalExecutor(1)
    yield made
    made.close()


def drive(
    executor: LocalExecutor,
    folder: Path,
    listed: list[Entry],
    only: Only | None = None,
    *,
    force: bool = False,
) -> tuple[Totals, dict[str, Outcome]]:
    run = Run(new_run_id(), "p", "sha256:0", ["x"], "local", only=only, force=force)
    driver = Driver(FolderStore(folder / "out"), executor, run)
    driver.begin()
    rows: dict[str, Outcome] = {}
    totals = driver.run(
        listed, MakeObedient(str(folder)), lambda row, _: rows.update({row.name: row}) or None
    )
    return totals, rows


def test_what_was_set_aside_stays_so_until_somebody_asks(executor: LocalExecutor, tmp_path: Path) -> None:
    """A later run doesn't begin it and says why again; `--only poison` and `--force` try it once more."""
    bad = [Entry("a", "ok"), Entry("b", "kill"), Entry("c", "x", fault="damaged", code="invalid_entry")]
    totals, rows = drive(executor, tmp_path, bad)
    assert {name: row.state for name, row in rows.items()} == {"a": "done", "b": "poison", "c": "failed"}
    assert totals.failed == 2
    _, again = drive(executor, tmp_path, bad)
    assert (again["b"].state, again["b"].reason) == ("poison", rows["b"].reason)
    assert not (tmp_path / "b.3").exists()
    good = [Entry("a", "ok"), Entry("b", "ok"), Entry("c", "ok")]
    _, only = drive(executor, tmp_path, good, "failed")
    assert {name: row.state for name, row in only.items()} == {"b": "poison", "c": "done"}
    _, only = drive(executor, tmp_path, good, "poison")
    assert {name: row.state for name, row in only.items()} == {"b": "done"}
    _, last = drive(executor, tmp_path, good, force=True)
    assert {row.state for row in last.values()} == {"done"}


def test_the_run_is_described(executor: LocalExecutor, tmp_path: Path) -> None:
    """`run.json` says what ran and how it ended, and every row names its run."""
    drive(executor, tmp_path, [Entry("a", "ok"), Entry("b", "ok")])
    document = json.loads((tmp_path / "out" / "run" / "run.json").read_text())
    assert (document["states"]["done"], document["entries"], document["interrupted"]) == (2, 2, False)
    assert document["begun_at"] <= document["ended_at"]
    assert {row["run_id"] for row in published(tmp_path / "out")} == {document["run_id"]}


def test_rows_outlive_an_output_that_is_away_for_a_while(tmp_path: Path) -> None:
    """A segment that can't be written is written the next time, with the rows since."""
    (tmp_path / "run").write_text("a file where a folder belongs")
    log = OutcomeLog(FolderStore(tmp_path), "r")
    log.add(Outcome("a", "u", "done"))
    with pytest.raises(OSError, match=r"."):
        log.publish()
    (tmp_path / "run").unlink()
    log.add(Outcome("b", "u", "done"))
    log.publish()
    assert [row["name"] for row in published(tmp_path)] == ["a", "b"]
