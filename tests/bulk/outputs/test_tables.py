"""The tables of a run: complete, readable at any time, and with the rows of each finished video once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.analysis import arrays
from support.analyze_command import ENVIRONMENT
from support.bulk_outputs import analyze, begin, copied, manifest, outcome, publish
from support.servers.s3 import S3Server, reachable

from app.bulk.outcomes import Outcome
from app.bulk.tables.lock import Busy, TablesLock
from app.bulk.tables.update import Tables
from app.cli import main
from app.videos.stores.base import ArtifactStore
from app.videos.stores.folder import FolderStore
from app.videos.stores.opened import open_store

DETECTIONS, DEPTH = "core_object_detections", "core_depth_midas"
Kinds = dict[str, type]


def rows_of(output: Path, component: str = DEPTH) -> dict[str, int]:
    """Rows by video."""
    found = duckdb.sql(
        f"SELECT name, count(*) FROM '{output}/tables/{component}/*.parquet' GROUP BY name"  # noqa: S608
    ).fetchall()
    return dict(found)


def frames_of(output: Path, *names: str) -> dict[str, int]:
    return {name: manifest(output, name)["frames"]["sampled"] for name in names}


def update(store: ArtifactStore, kinds: Kinds, **how: Any) -> Any:
    return Tables(store, kinds, "r1", **how).update()


def test_a_table_is_that_of_analyze_and_says_whose_its_rows_are(output: Path, kinds: Kinds) -> None:
    """The columns of `gateway analyze --format parquet` after name, id and run_id, with the same values."""
    updated = update(FolderStore(output), kinds)
    assert (updated.videos, updated.finished, updated.changed, updated.waiting) == (3, 3, 3, 0)
    (part,) = (output / "tables" / DETECTIONS).iterdir()
    assert part.name == "part-000000-r1.parquet"
    table = pd.read_parquet(part)
    assert list(table.columns[:6]) == ["name", "id", "run_id", "video_id", "frame_index", "time_s"]
    assert list(table.columns[-2:]) == ["model_name", "model_digest"]
    mine = table[table["name"] == "cam 1/ü.mp4"]
    assert set(mine["id"]) == {"id of cam 1/ü.mp4"}
    assert set(mine["run_id"]) == {manifest(output, "cam 1/ü.mp4")["run_id"]}
    boxes = arrays(output / "videos" / "cam 1" / "ü.mp4" / DETECTIONS / "detections.npz")
    assert np.array_equal(mine[["x1", "y1", "x2", "y2"]].to_numpy(), boxes["boxes"][boxes["valid_mask"]])
    told = pq.read_schema(part).metadata
    assert told[b"gateway.component"] == DETECTIONS.encode()
    assert json.loads(told[b"gateway.class_names"])[0] == "0:person"
    assert rows_of(output) == frames_of(output, "a.mp4", "cam 1/ü.mp4", "cam 1/b.mp4")


def test_the_index_has_a_row_per_video(output: Path, kinds: Kinds) -> None:
    """Also for those that failed; the newest row counts."""
    store = FolderStore(output)
    failed = Outcome("c.mp4", "/videos/c.mp4", "failed", "invalid_video", "it is empty", 1, run_id="r1")
    publish(store, "r2", failed, outcome(output, "a.mp4", 60.0, state="skipped", run_id="r2"))
    update(store, kinds)
    index = pl.read_parquet(output / "index.parquet")
    assert index.columns == [
        "name", "uri", "id", "state", "code", "reason", "attempts", "frames", "seconds", "bytes", "sha256",
        "config_hash", "model_signature", "run_id", "started_at", "finished_at",
    ]  # fmt: skip
    states = dict(index.select("name", "state").iter_rows())
    assert states == {"a.mp4": "skipped", "cam 1/ü.mp4": "done", "cam 1/b.mp4": "done", "c.mp4": "failed"}
    assert index["finished_at"].dtype == pl.Datetime("ms")
    assert index["finished_at"].null_count() == 1
    assert "c.mp4" not in rows_of(output)


def test_the_index_gets_rows_that_could_not_be_read_before(output: Path, kinds: Kinds) -> None:
    """A later version may read a row that was damaged for the one that wrote the index."""
    store = FolderStore(output)
    row = Outcome("c.mp4", "/videos/c.mp4", "failed", run_id="r2").to_json().encode()
    store.put("run/outcomes/r2-000000.jsonl", b"[" + row[1:])
    update(store, kinds)
    assert "c.mp4" not in pl.read_parquet(output / "index.parquet")["name"]
    store.put("run/outcomes/r2-000000.jsonl", row)
    update(store, kinds)
    assert "c.mp4" in pl.read_parquet(output / "index.parquet")["name"]


def test_tables_without_the_document_of_the_run(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rows are enough, as they are for the other commands."""
    (output / "run" / "run.json").write_text("{")
    assert main(["bulk", "tables", str(output)]) == 0
    assert "index.parquet: 3 videos" in capsys.readouterr().out


def test_a_second_update_changes_nothing(output: Path, kinds: Kinds) -> None:
    """No file is written again, except the lock."""
    update(FolderStore(output), kinds)
    before = stamps(output)
    assert update(FolderStore(output), kinds).changed == 0
    assert stamps(output) == before


def test_an_update_removes_what_a_killed_one_was_writing(output: Path, kinds: Kinds) -> None:
    """A part can be large, and the next one has another name."""
    update(FolderStore(output), kinds)
    half = output / "tables" / DEPTH / ".part-000009-0.parquet.abcd_123.new"
    half.touch()
    os.utime(half, (0, 0))
    update(FolderStore(output), kinds)
    assert not half.exists()


def stamps(output: Path) -> dict[str, int]:
    files = [*output.glob("tables/**/*.parquet"), *output.glob("*.parquet")]
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_an_update_adds_what_has_finished_since(output: Path, kinds: Kinds) -> None:
    """The last part is filled further before a new one begins."""
    store = FolderStore(output)
    update(store, kinds)
    copied(output, "a.mp4", "z.mp4")
    publish(store, "r2", outcome(output, "z.mp4", 60.0))
    assert update(store, kinds).changed == 1
    assert len(list((output / "tables" / DEPTH).iterdir())) == 1
    assert rows_of(output) == frames_of(output, "a.mp4", "cam 1/ü.mp4", "cam 1/b.mp4", "z.mp4")


def test_parts_have_about_the_size_that_is_asked_for(output: Path, kinds: Kinds) -> None:
    """A video is never split, and a full part is never written again."""
    store = FolderStore(output)
    update(store, kinds, part_bytes=1)
    parts = sorted((output / "tables" / DEPTH).iterdir())
    assert [path.name for path in parts] == [f"part-{number:06d}-r1.parquet" for number in range(3)]
    assert sum(rows_of(output).values()) == 26
    copied(output, "a.mp4", "z.mp4")
    publish(store, "r2", outcome(output, "z.mp4", 60.0))
    before = stamps(output)
    update(store, kinds, part_bytes=1)
    assert {
        name: stamp for name, stamp in stamps(output).items() if before.get(name) not in (None, stamp)
    } == {str(output / "index.parquet"): (output / "index.parquet").stat().st_mtime_ns}
    assert rows_of(output)["z.mp4"] == 12


def test_a_video_that_was_analysed_again_has_its_new_rows_alone(
    output: Path,
    kinds: Kinds,
    repository: Path,
    artefacts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the part that it was in; the other videos keep theirs."""
    store = FolderStore(output)
    update(store, kinds, part_bytes=1)
    profile = f"name: again\ncomponents: {{{DETECTIONS}: {{}}, {DEPTH}: {{}}}}\nsampling: {{every: 2}}\n"
    _again(monkeypatch, output, artefacts, tmp_path, repository, profile)
    publish(store, "r2", outcome(output, "a.mp4", 90.0, run_id="r2"))
    assert update(store, kinds, part_bytes=1).changed == 1
    assert len(list((output / "tables" / DEPTH).iterdir())) == 3
    assert rows_of(output) == {"a.mp4": 6, **frames_of(output, "cam 1/ü.mp4", "cam 1/b.mp4")}
    assert set(pd.read_parquet(output / "tables" / DEPTH).query("name == 'a.mp4'")["frame_index"]) == {
        0,
        2,
        4,
        6,
        8,
        10,
    }


def _again(
    monkeypatch: pytest.MonkeyPatch,
    output: Path,
    artefacts: Path,
    tmp_path: Path,
    repository: Path,
    profile: str,
) -> None:
    """Analyse one video again with another profile."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    analyze(artefacts.parent / "in" / "a.mp4", output, tmp_path, repository, profile)


def test_a_component_that_a_video_has_no_longer_loses_its_rows(
    output: Path,
    kinds: Kinds,
    repository: Path,
    artefacts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A part without a video is removed."""
    store = FolderStore(output)
    update(store, kinds, part_bytes=1)
    _again(monkeypatch, output, artefacts, tmp_path, repository, f"components: {{{DETECTIONS}: {{}}}}\n")
    publish(store, "r2", outcome(output, "a.mp4", 90.0, run_id="r2"))
    update(store, kinds, part_bytes=1)
    assert "a.mp4" not in rows_of(output)
    assert len(list((output / "tables" / DEPTH).iterdir())) == 2
    assert "a.mp4" in rows_of(output, DETECTIONS)


def test_rows_of_another_schema_are_in_a_part_of_their_own(
    output: Path, kinds: Kinds, tmp_path: Path
) -> None:
    """Files of one table whose texts differ, such as class names, never share a part."""
    store = FolderStore(output)
    npz = output / "videos" / "a.mp4" / DETECTIONS / "detections.npz"
    changed = {**arrays(npz), "class_names": np.array(["0:cat", "1:dog"])}
    np.savez(npz, **changed)  # type: ignore[arg-type]
    _rewrite_row(output, "a.mp4", npz)
    update(store, kinds)
    parts = sorted((output / "tables" / DETECTIONS).iterdir())
    assert len(parts) == 2
    names = {json.loads(pq.read_schema(path).metadata[b"gateway.class_names"])[0] for path in parts}
    assert names == {"0:cat", "0:person"}


def _rewrite_row(output: Path, name: str, path: Path) -> None:
    """Let a manifest list a file as it is now."""
    document = manifest(output, name)
    for row in document["artifacts"]:
        if path.as_posix().endswith(row["name"]):
            data = path.read_bytes()
            row |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (output / "videos" / name / "manifest.json").write_text(json.dumps(document))


@pytest.mark.parametrize("harm", ["changed", "gone", "manifest", "no manifest"])
def test_an_artefact_that_is_not_as_listed_waits(output: Path, kinds: Kinds, harm: str) -> None:
    """The others are taken; the video is once its manifest and its files agree."""
    folder = output / "videos" / "a.mp4"
    kept = output.parent / "kept"
    shutil.copytree(folder, kept)
    if harm == "changed":
        (folder / DEPTH / "depth.npz").write_bytes(b"other bytes")
    elif harm == "gone":
        (folder / DEPTH / "depth.npz").unlink()
    elif harm == "manifest":
        (folder / "manifest.json").write_text("{")
    else:
        (folder / "manifest.json").unlink()
    updated = update(FolderStore(output), kinds)
    assert (updated.changed, updated.waiting, list(updated.reasons)) == (2, 1, ["a.mp4"])
    assert "a.mp4" not in rows_of(output)
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    assert update(FolderStore(output), kinds).changed == 1
    assert rows_of(output)["a.mp4"] == 12
    assert rows_of(output, DETECTIONS)["a.mp4"] > 0


def test_a_state_that_is_lost_is_found_again(output: Path, kinds: Kinds) -> None:
    """The parts themselves say what they hold: nothing is taken twice."""
    store = FolderStore(output)
    update(store, kinds)
    before = rows_of(output)
    (output / "run" / "tables" / "state.json.gz").write_bytes(b"damaged")
    update(store, kinds)
    assert rows_of(output) == before


def test_a_damaged_part_is_named(output: Path, kinds: Kinds, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says what to do, and it helps."""
    update(FolderStore(output), kinds)
    (part,) = (output / "tables" / DEPTH).iterdir()
    part.write_bytes(b"no parquet")
    copied(output, "a.mp4", "z.mp4")
    publish(FolderStore(output), "r2", outcome(output, "z.mp4", 60.0))
    assert main(["bulk", "tables", str(output)]) == 2
    assert "remove it" in capsys.readouterr().err
    part.unlink()
    (output / "run" / "tables" / "state.json.gz").unlink()
    assert main(["bulk", "tables", str(output)]) == 0
    assert rows_of(output)["a.mp4"] == 12


def test_readers_see_whole_videos_while_the_run_goes_on(output: Path, kinds: Kinds) -> None:
    """pandas, Polars and DuckDB, again and again beside updates: every video that is there has all its rows, once."""
    store = FolderStore(output)
    update(store, kinds)
    frames = dict(frames_of(output, "a.mp4", "cam 1/ü.mp4", "cam 1/b.mp4"))
    names = [f"copy {number}.mp4" for number in range(12)]
    faults: list[BaseException] = []

    def run() -> None:
        try:
            for number, name in enumerate(names):
                copied(output, "a.mp4", name)
                publish(store, f"r{number + 2}", outcome(output, name, 60.0 + number))
                update(store, kinds, part_bytes=40_000)
        except BaseException as fault:  # noqa: BLE001  # the test fails with it
            faults.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    rounds = 0
    while thread.is_alive() or not rounds:
        for counts in _counts(output):
            assert all(count == frames.get(name, 12) for name, count in counts.items())
            assert set(counts) >= set(frames)
        rounds += 1
    thread.join()
    assert faults == []
    assert rows_of(output) == {**frames, **dict.fromkeys(names, 12)}
    assert len(pl.read_parquet(output / "index.parquet")) == 15


def _counts(output: Path) -> list[dict[str, int]]:
    """The rows by video as each of the tools sees them."""
    folder = output / "tables" / DEPTH
    in_pandas = pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))])
    in_polars = pl.read_parquet(folder / "*.parquet").group_by("name").len()
    return [dict(in_pandas["name"].value_counts()), dict(in_polars.iter_rows()), rows_of(output)]


def test_one_process_at_a_time_writes_the_tables(
    output: Path, kinds: Kinds, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are told who is at it; a holder that was killed is succeeded when its time is over."""
    store = FolderStore(output)
    with TablesLock(store).held() as first:
        with pytest.raises(Busy, match="writes the tables now"):
            update(store, kinds)
        assert main(["bulk", "tables", str(output)]) == 2
        assert "writes the tables now" in capsys.readouterr().err
        (lock,) = (output / "run" / "tables").glob("lock-*.json")
        lock.write_text(json.dumps({**json.loads(lock.read_text()), "until": 1.0}))
        update(store, kinds)
        with pytest.raises(Busy, match="taken over"):
            first.check()
    update(store, kinds)


@pytest.mark.parametrize("footers", [16 << 20, 0])
def test_short_videos_share_row_groups(
    output: Path, kinds: Kinds, footers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that has been made longer often is written again in one piece when old footers are most of it."""
    monkeypatch.setattr("app.bulk.tables.parts._FOOTERS_BYTES", footers)
    store = FolderStore(output)
    update(store, kinds)
    (part,) = (output / "tables" / DEPTH).iterdir()
    assert pq.read_metadata(part).num_row_groups == 1
    for number in range(8):
        copied(output, "a.mp4", f"copy {number}.mp4")
        publish(store, f"s{number}", outcome(output, f"copy {number}.mp4", 60.0))
        update(store, kinds)
    groups = pq.read_metadata(part).num_row_groups
    assert groups == 9 if footers else groups < 9
    assert rows_of(output) == {
        **frames_of(output, "a.mp4", "cam 1/ü.mp4", "cam 1/b.mp4"),
        **{f"copy {number}.mp4": 12 for number in range(8)},
    }


def test_a_reader_with_an_old_footer_finds_its_rows(output: Path, kinds: Kinds) -> None:
    """Readers look at a file twice: for its footer, and for the rows. A part grows meanwhile without harm."""
    store = FolderStore(output)
    update(store, kinds)
    (part,) = (output / "tables" / DEPTH).iterdir()
    before, size = pq.read_table(part), part.stat().st_size
    footer = pq.read_metadata(part)
    for number in range(3):
        copied(output, "a.mp4", f"copy {number}.mp4")
        publish(store, f"s{number}", outcome(output, f"copy {number}.mp4", 60.0))
        update(store, kinds)
    assert part.stat().st_size > size
    assert pq.ParquetFile(part, metadata=footer).read().equals(before)
    whole = pq.read_table(part)
    assert len(whole) == len(before) + 36
    assert whole.sort_by([("name", "ascending"), ("frame_index", "ascending")]).equals(
        pa.Table.from_pandas(pd.read_parquet(part), whole.schema).sort_by(
            [("name", "ascending"), ("frame_index", "ascending")]
        )
    )


def test_a_bucket_has_the_same_tables(output: Path, kinds: Kinds) -> None:
    """The same files in a bucket, read there by DuckDB's copy."""
    with S3Server() as server, reachable(server):
        store = open_store(server.bucket("runs") + "/one")
        for path in output.rglob("*"):
            if path.is_file():
                store.put(str(path.relative_to(output)), path.read_bytes())
        assert update(store, kinds).changed == 3
        assert update(store, kinds).changed == 0
        update(FolderStore(output), kinds)
        for component in (DEPTH, DETECTIONS):
            (stored,) = store.list(f"tables/{component}")
            with store.open(stored.name) as file:
                found = pq.read_table(file)
            (part,) = (output / "tables" / component).iterdir()
            assert found.equals(pq.read_table(part))


@pytest.mark.parametrize("command", ["tables", "status", "report"])
def test_what_is_no_output_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """With a line that says so, and exit code 2."""
    assert main(["bulk", command, str(tmp_path / "nothing")]) == 2
    assert "there is no output of `gateway bulk`" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_the_command_says_what_it_did(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people and as JSON; exit code 1 where a video waits."""
    begin(FolderStore(output), 3, run_id=None)
    assert main(["bulk", "tables", str(output)]) == 0
    assert "index.parquet: 3 videos" in capsys.readouterr().out
    (output / "run" / "tables" / "state.json.gz").unlink()
    (output / "videos" / "a.mp4" / "manifest.json").unlink()
    assert main(["bulk", "tables", str(output), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["reasons"] == {"a.mp4": "it has no manifest"}
