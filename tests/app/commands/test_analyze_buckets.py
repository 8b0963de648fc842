"""`gateway analyze` from and to buckets of a real S3 server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.analysis import patches
from support.analyze_command import BOXES, ENVIRONMENT, options, run
from support.servers.s3 import SECRET, S3Server, reachable

from app.videos.stores.opened import open_store


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what every run here has, in this process and in those that it starts."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3Server]:
    """An S3 server with a bucket."""
    with S3Server() as server:
        server.bucket("corpus")
        with reachable(server):
            yield server


@pytest.fixture
def boxes(repository: Path, tmp_path: Path) -> list[str]:
    """The options of a run over boxes alone."""
    return options(repository, tmp_path, BOXES)


def test_objects_and_files_into_a_bucket(bucket: S3Server, boxes: list[str], tmp_path: Path) -> None:
    """Files, objects and lists that name both; a missing object fails alone, and done ones are skipped."""
    patches(tmp_path / "a.mp4", 6)
    bucket.client().upload_file(str(tmp_path / "a.mp4"), "corpus", "in/b 1.mp4")
    (tmp_path / "list.txt").write_text("a.mp4\ns3://corpus/in/b 1.mp4\ns3://corpus/in/missing.mp4\n")
    given = ("--video-path", tmp_path / "list.txt", "--output", "s3://corpus/out/1", *boxes)
    code, rows, _ = run(*given)
    assert (code, [row["status"] for row in rows]) == (1, ["ok", "ok", "failed"])
    assert [row["output"] for row in rows[:2]] == ["s3://corpus/out/1/a.mp4", "s3://corpus/out/1/b 1.mp4"]
    assert "no such bucket or object" in rows[2]["detail"]
    with open_store("s3://corpus/out/1/b 1.mp4").open("manifest.json") as file:
        assert json.load(file)["input"]["name"] == "b 1.mp4"
    code, rows, _ = run(*given)
    assert (code, [row["status"] for row in rows]) == (1, ["skipped", "skipped", "failed"])


def test_objects_of_one_name_are_told_apart(bucket: S3Server, boxes: list[str], tmp_path: Path) -> None:
    """Two cameras that call their videos alike are two videos."""
    patches(tmp_path / "1.mp4", 4)
    for camera in ("cam1", "cam2"):
        bucket.client().upload_file(str(tmp_path / "1.mp4"), "corpus", f"{camera}/1.mp4")
    named = ("s3://corpus/cam1/1.mp4", "s3://corpus/cam2/1.mp4")
    code, rows, _ = run("--video-path", *named, "--output", tmp_path / "out", *boxes)
    assert (code, [row["status"] for row in rows]) == (0, ["ok", "ok"])
    assert [row["output"] for row in rows] == [
        f"{tmp_path}/out/corpus/{cam}/1.mp4" for cam in ("cam1", "cam2")
    ]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("https://host/v.mp4", "https:// is not supported"),
        ("s3://corpus/in/", "gateway bulk"),
        ("s3://key:secret@corpus/v.mp4", "credentials don't belong"),
    ],
)
def test_sources_that_are_none_fail_alone(
    bucket: S3Server, boxes: list[str], tmp_path: Path, source: str, words: str
) -> None:
    """The line says what to write instead, and repeats no password."""
    patches(tmp_path / "a.mp4", 4)
    code, rows, _ = run("--video-path", source, tmp_path / "a.mp4", "--output", tmp_path / "out", *boxes)
    assert (code, [row["status"] for row in rows]) == (1, ["failed", "ok"])
    assert words in rows[0]["detail"]
    assert "secret" not in json.dumps(rows)


@pytest.mark.parametrize(
    ("output", "words"),
    [("s3://nowhere/x", "no such bucket"), ("gs://corpus", "gs:// is not supported"), ("", "name a folder")],
)
def test_outputs_that_are_none_are_refused_first(
    bucket: S3Server, boxes: list[str], tmp_path: Path, output: str, words: str
) -> None:
    """No video is analysed for an output that can't take it."""
    patches(tmp_path / "a.mp4", 4)
    code, rows, said = run("--video-path", tmp_path / "a.mp4", "--output", output, *boxes)
    assert (code, rows) == (2, [])
    assert said.startswith("gateway analyze: --output: ")
    assert words in said
    assert SECRET not in said
