"""`gateway bulk` over real videos and small models: rows for everything, exit codes, and what a second run does."""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from support import videos
from support.analysis import patches, same_numbers
from support.analyze_command import BOXES, ENVIRONMENT
from support.analyze_command import options as analyze_options
from support.analyze_command import run as analyze
from support.bulk.command import manifests, options, published, run
from support.commands import run_command

from deploy.local.triton_server import free_ports

FRAMES = 6


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what every run here has; worker processes inherit it."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two cameras with a video of the same name."""
    folder = tmp_path / "in"
    for name in ("cam1", "cam2"):
        (folder / name).mkdir(parents=True)
        patches(folder / name / "0001.mp4", FRAMES + (name == "cam2"))
    return folder


def test_a_folder_becomes_what_analyze_makes(repository: Path, corpus: Path, tmp_path: Path) -> None:
    """One manifest per video, arrays equal to the bit, rows in the output; the second run skips all of it."""
    given = [corpus, *options(repository, tmp_path, BOXES), "--output", tmp_path / "out", "--workers", "1"]
    code, rows, said = run(*given)
    assert (code, {name: row["state"] for name, row in rows.items()}) == (
        0, {"cam1/0001.mp4": "done", "cam2/0001.mp4": "done"},
    )  # fmt: skip
    assert [rows[f"cam{n}/0001.mp4"]["frames"] for n in (1, 2)] == [FRAMES, FRAMES + 1]
    assert "2 videos: 2 done; 13 frames" in said
    single = analyze_options(repository, tmp_path, BOXES)
    assert analyze("--video-path", corpus, "--output", tmp_path / "single", *single)[0] == 0
    for name, manifest in manifests(tmp_path / "out").items():
        assert manifest["input"]["name"] == name
        assert rows[name]["sha256"] == manifest["input"]["sha256"]
        assert same_numbers(tmp_path / "single" / name, tmp_path / "out" / "videos" / name)
    assert {row["name"]: row for row in published(tmp_path / "out")} == rows
    document = json.loads((tmp_path / "out" / "run" / "run.json").read_text())
    assert (document["entries"], document["interrupted"], document["states"]["done"]) == (2, False, 2)
    code, rows, _ = run(*given)
    assert (code, {row["state"] for row in rows.values()}) == (0, {"skipped"})
    assert list((tmp_path / "out" / "run").glob("attempts/*")) == []
    index = pd.read_parquet(tmp_path / "out" / "index.parquet")
    assert dict(zip(index["name"], index["state"], strict=True)) == dict.fromkeys(rows, "skipped")
    boxes = pd.read_parquet(tmp_path / "out" / "tables" / "core_object_detections")
    assert set(boxes["name"]) == set(rows)
    assert boxes.groupby("name")["frame_index"].max().to_dict() == {
        "cam1/0001.mp4": FRAMES - 1, "cam2/0001.mp4": FRAMES,
    }  # fmt: skip


def test_whatever_is_wrong_with_a_video_is_a_row(
    repository: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged, empty, too long, absent, unreadable, repeated and nameless entries: reasons, the rest done, exit 1."""
    monkeypatch.setenv("GATEWAY_VIDEO_MAX_FRAMES", "50")
    (corpus / "damaged.mp4").write_bytes(b"no video")
    (corpus / "empty.mp4").touch()
    (corpus / "folder.mp4").mkdir()
    os.mkfifo(corpus / "pipe.mp4")
    (corpus / "device.mp4").symlink_to("/dev/zero")
    patches(corpus / "long.mp4", 60)
    videos.cut(patches(corpus / "whole.mkv", 40), 0.5)
    names = (
        "cam1/0001.mp4",
        "damaged.mp4",
        "empty.mp4",
        "long.mp4",
        "folder.mp4",
        "absent.mp4",
        "cut-whole.mkv",
        "pipe.mp4",
        "device.mp4",
    )
    lines = [f"{name},{number}" for number, name in enumerate((*names, "", "cam1/0001.mp4", "cam2/0001.mp4"))]
    (corpus / "list.csv").write_text("\n".join(("path,id", *lines)))
    given = [corpus / "list.csv", *options(repository, tmp_path, BOXES), "--output", tmp_path / "out"]
    code, rows, said = run(*given, "--workers", "1")
    assert code == 1
    assert {name: (row["state"], row["code"], row["id"]) for name, row in rows.items()} == {
        "cam1/0001.mp4": ("done", None, "0"),
        "damaged.mp4": ("failed", "unsupported_media_type", "1"),
        "empty.mp4": ("failed", "invalid_video", "2"),
        "long.mp4": ("failed", "video_too_long", "3"),
        "folder.mp4": ("failed", "unreadable", "4"),
        "absent.mp4": ("failed", "not_found", "5"),
        "cut-whole.mkv": ("partial", "invalid_video", "6"),
        "pipe.mp4": ("failed", "unreadable", "7"),
        "device.mp4": ("failed", "unreadable", "8"),
        "list.csv#10": ("failed", "invalid_entry", "9"),
        "cam1/0001.mp4#2": ("failed", "duplicate", "10"),
        "cam2/0001.mp4": ("done", None, "11"),
    }
    assert all(row["reason"] for row in rows.values() if row["state"] == "failed")
    assert "Traceback" not in said
    assert set(manifests(tmp_path / "out")) == {"cam1/0001.mp4", "cam2/0001.mp4", "cut-whole.mkv"}
    patches(corpus / "absent.mp4", FRAMES)
    code, rows, _ = run(*given, "--only", "failed", "--workers", "1")
    assert (code, rows["absent.mp4"]["state"]) == (1, "done")
    assert "cam1/0001.mp4" not in rows


def test_a_dry_run_lists_and_writes_nothing(
    repository: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names and the files that they stand for, by the choice that was made."""
    given = [
        "bulk",
        str(corpus),
        *options(repository, tmp_path, BOXES),
        "--output",
        str(tmp_path / "out"),
        "--dry-run",
    ]
    code, out, _ = run_command(capsys, *given)
    assert (code, out.splitlines()[0]) == (0, f"cam1/0001.mp4 <- {corpus}/cam1/0001.mp4")
    assert len(out.splitlines()) == 2
    parts = [run_command(capsys, *given, "--shard", f"{n}/2", "--json")[1].splitlines() for n in (1, 2)]
    assert sorted(json.loads(line)["name"] for part in parts for line in part) == [
        "cam1/0001.mp4",
        "cam2/0001.mp4",
    ]
    assert len(run_command(capsys, *given, "--limit", "1")[1].splitlines()) == 1
    (corpus / "cam1" / "new\nline.mp4").touch()
    assert f"cam1/new\\nline.mp4 <- {corpus}/cam1/new\\nline.mp4\n" in run_command(capsys, *given)[1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent"], "there is no file or folder absent"),
        (["in", "--shard", "3/2"], "--shard: a shard is i/n"),
        (["in", "--output", "ftp://h/x"], "ftp:// is not supported"),
        (["in", "--output", "p.yaml"], "p.yaml"),
        (["in", "--output", ""], "an empty name is no store"),
        (["in", "--repository", "absent"], "there is no folder absent"),
        (["in", "--metrics-port", "70000"], "--metrics-port"),
    ],
)
def test_a_wrong_command_is_told_before_anything_runs(
    repository: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    """Exit code 2 and one line that says what to change."""
    monkeypatch.chdir(tmp_path)
    given = options(repository, tmp_path, BOXES)
    code, out, said = run_command(capsys, "bulk", *given, "--output", "out", *arguments, "--workers", "1")
    assert (code, out) == (2, "")
    assert words in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("module", ["s3fs", "loky", "rich", "pyarrow"])
def test_a_package_that_is_missing_is_said(
    repository: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    module: str,
) -> None:
    """Each of the extra, also where the others are there: one line that says what to install, and nothing written."""
    monkeypatch.setitem(sys.modules, module, None)  # Python then finds it nowhere
    given = [*options(repository, tmp_path, BOXES), "--output", str(tmp_path / "out")]
    code, out, said = run_command(capsys, "bulk", str(corpus), *given)
    assert (code, out, len(said.splitlines())) == (2, "", 1)
    assert re.search(rf"need .*{module}.*: pip install .*bulk", said)
    assert not (tmp_path / "out").exists()


def test_a_parquet_list_without_pyarrow_is_said(
    repository: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the names of a list can be read."""
    pd.DataFrame({"path": ["cam1/0001.mp4"]}).to_parquet(corpus / "list.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "app.bulk.corpus.parquet_rows", raising=False)
    given = [*options(repository, tmp_path, BOXES), "--output", str(tmp_path / "out"), "--dry-run"]
    code, out, said = run_command(capsys, "bulk", str(corpus / "list.parquet"), *given)
    assert (code, out, len(said.splitlines())) == (2, "", 1)
    assert "tables need pyarrow: pip install" in said


def test_metrics_are_served_while_a_run_goes_on(
    repository: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prometheus reads videos by state, frames and what is left; afterwards the port is free again."""
    (port,) = free_ports(1)
    found: list[str] = []
    from app.commands.bulk.views import JsonLines  # noqa: PLC0415  # looked into, not replaced

    add = JsonLines.add

    def look(view: JsonLines, *row: object) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            found.append(answer.read().decode())
        add(view, *row)  # type: ignore[arg-type]

    monkeypatch.setattr(JsonLines, "add", look)
    monkeypatch.setenv("GATEWAY_HOST", "127.0.0.1")
    given = [corpus, *options(repository, tmp_path, BOXES), "--output", tmp_path / "out", "--workers", "1"]
    assert run(*given, "--metrics-port", str(port))[0] == 0
    assert 'gateway_bulk_videos_total{state="done"} 2.0' in found[-1]
    assert f"gateway_bulk_frames_total {2 * FRAMES + 1}.0" in found[-1]
    with pytest.raises(OSError, match=r"."):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_a_row(repository: Path, corpus: Path, tmp_path: Path) -> None:
    """The words are those of the system."""
    (corpus / "cam1" / "0001.mp4").chmod(0)
    _, rows, _ = run(corpus, *options(repository, tmp_path, BOXES), "--output", tmp_path / "out")
    assert rows["cam1/0001.mp4"]["reason"] == "Permission denied"
