"""`gateway analyze` over lists and folders as people have them: a line for every entry, whatever is wrong with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.analysis import PROFILES, patches
from support.paths import ROOT

from app.commands.analysis_backend import reached
from app.commands.video_list import found_videos
from app.settings import Settings
from app.videos.names import shown
from routing import catalogue as catalogues

PROFILE = "components: {core_object_detections: {variant: n}}\n"


def write(folder: Path, *names: bytes) -> None:
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)


def names(*paths: Path) -> list[tuple[str, str | None]]:
    return [(shown(entry.name), entry.fault) for entry in found_videos(paths)]


@pytest.mark.parametrize(
    ("content", "there", "expected"),
    [
        (b"\xef\xbb\xbfa.mp4\r\nb.mp4\r\n", [b"a.mp4", b"b.mp4"], ["a.mp4", "b.mp4"]),
        (b"a.mp4\rb.mp4", [b"a.mp4", b"b.mp4"], ["a.mp4", "b.mp4"]),
        ("a.mp4\nb.mp4\n".encode("utf-16"), [b"a.mp4", b"b.mp4"], ["a.mp4", "b.mp4"]),
        ("a.mp4\r\ncafé.mp4".encode("utf-16-le"), [b"a.mp4", "café.mp4".encode()], ["a.mp4", "café.mp4"]),
        ("a.mp4\n".encode("utf-16-be"), [b"a.mp4"], ["a.mp4"]),
        ("a.mp4\n".encode("utf-32"), [b"a.mp4"], ["a.mp4"]),
        (b"caf\xe9.mp4\n", [b"caf\xe9.mp4", "café.mp4".encode()], ["caf\\xe9.mp4"]),
        (b"caf\xe9.mp4\n", ["café.mp4".encode()], ["café.mp4"]),
        (b"\x80.mp4\n", ["€.mp4".encode()], ["€.mp4"]),
        ("café.mp4".encode(), [b"caf\xe9.mp4"], ["caf\\xe9.mp4"]),
        ("café.mp4".encode(), ["cafe\u0301.mp4".encode()], ["cafe\u0301.mp4"]),
        (b"# a comment\n\n  a b.mp4  \n", [b"a b.mp4"], ["a b.mp4"]),
        (b"x/1.mp4\ny/1.mp4\n./x//1.mp4", [b"x/1.mp4", b"y/1.mp4"], ["x/1.mp4", "y/1.mp4", "x/1.mp4"]),
    ],
    ids=repr,
)
def test_lists_in_any_encoding(
    tmp_path: Path, content: bytes, there: list[bytes], expected: list[str]
) -> None:
    """The files that a list means are found, and called by their paths below its folder."""
    write(tmp_path, *there)
    (tmp_path / "list.txt").write_bytes(content)
    assert names(tmp_path / "list.txt") == [(name, None) for name in expected]


@pytest.mark.parametrize(
    "line", [b"absent.mp4", b"nul\0.mp4x", b"n" * 300, b"\xff\xfe.mp4", b"a.mp4/b.mp4", b"folder"]
)
def test_a_line_that_names_nothing_is_its_own_fault(tmp_path: Path, line: bytes) -> None:
    """The others are found; the line keeps its place."""
    write(tmp_path, b"a.mp4", b"z.mp4", b"folder/x.mp4")
    (tmp_path / "list.txt").write_bytes(b"a.mp4\n" + line + b"\nz.mp4\n")
    faults = [entry.fault for entry in found_videos([tmp_path / "list.txt"])]
    assert faults == [None, "no such video", None]


def test_folders(tmp_path: Path) -> None:
    """Searched whole: videos by their paths below it, unread kinds too; no resource forks, no other files."""
    write(tmp_path, b"b/1.mp4", b"a/1.mp4", b"a/._1.mp4", b"x.TS", b"notes.md", b"caf\xe9.mkv")
    assert names(tmp_path) == [("a/1.mp4", None), ("b/1.mp4", None), ("caf\\xe9.mkv", None), ("x.TS", None)]


def test_videos_of_one_name_in_several_roots_get_folders_of_their_own(tmp_path: Path) -> None:
    """They are called by their whole paths; the same video named twice is one."""
    write(tmp_path, b"a/v.mp4", b"b/v.mp4")
    whole = str(tmp_path).lstrip("/")
    assert names(tmp_path / "a", tmp_path / "b") == [(f"{whole}/a/v.mp4", None), (f"{whole}/b/v.mp4", None)]
    assert names(tmp_path / "a", tmp_path / "a" / "v.mp4") == [("v.mp4", None)] * 2


def test_a_listed_video_elsewhere_keeps_its_path(tmp_path: Path) -> None:
    """Nothing is written beside the output, whatever `..` a list has."""
    write(tmp_path, b"in/x.mp4", b"else/v.mp4")
    (tmp_path / "in" / "list.txt").write_text(f"../else/v.mp4\n{tmp_path}/in/x.mp4\n")
    found = names(tmp_path / "in" / "list.txt")
    assert found == [(f"{tmp_path}/else/v.mp4".lstrip("/"), None), ("x.mp4", None)]


@pytest.mark.parametrize(
    ("profile", "settings", "expected"),
    [
        (PROFILE, {}, {"yolo11n_320", "yolo11n_640", "yolo11n_960"}),
        (
            "components: {core_object_detections: {}}",
            {"variant": "s"},
            {f"yolo11s_{n}" for n in (320, 640, 960)},
        ),
        ("components: {core_object_detections: {branch: yolo11n_640}}", {}, {"yolo11n_640"}),
        ("components: {core_clip: {branch: clip_image_224}}", {}, {"clip_image_224"}),
        (
            "components: {core_clip: {branch: clip_image_224, prompts: {a: [b]}}}",
            {},
            {"clip_image_224", "clip_text"},
        ),
        ("components: {core_depth_midas: {}}", {}, {"midas_256", "midas_384", "midas_512"}),
    ],
)
def test_only_branches_that_can_be_reached_are_loaded(
    profile: str, settings: dict[str, str], expected: set[str]
) -> None:
    """Profile, variant and settings decide."""
    found = reached(PROFILES.parse(profile), Settings(**settings), catalogues.load())  # type: ignore[arg-type]
    assert set(found) == expected


def test_a_run_over_odd_names_reports_each(all_families: Path, tmp_path: Path) -> None:
    """No traceback on a strict terminal; manifests name the videos; a second run skips, and loads no model."""
    source, out = tmp_path / "in", tmp_path / "out"
    write(source, b"._a.mp4", b"x.ts")
    patches(source / "a.mp4", 3)
    (source / "deep").mkdir()
    patches(tmp_path / "v.mp4", 3).rename(source / os.fsdecode(b"deep/caf\xe9\n.mp4"))
    (tmp_path / "p.yaml").write_text(PROFILE)
    command = [sys.executable, "-m", "app.cli", "analyze", "--profile-path", tmp_path / "p.yaml"]
    command += ["--repository", all_families, "--output", out, "--video-path", source]
    environment = {**os.environ, "GATEWAY_MANIFEST": "", "PYTHONIOENCODING": "ascii:strict"}
    first, second = (
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        for _ in range(2)
    )
    assert [line.split()[0] for line in first.stdout.splitlines()] == ["ok", "ok", "failed"]
    assert [line.split()[0] for line in second.stdout.splitlines()] == ["skipped", "skipped", "failed"]
    assert (first.returncode, second.returncode) == (1, 1)
    assert "Traceback" not in first.stderr + second.stderr
    found = {json.loads(path.read_text())["video_id"] for path in out.rglob("manifest.json")}
    assert found == {"a.mp4", "deep/caf\\xe9\\n.mp4"}


def test_a_run_that_skips_everything_loads_nothing(
    all_families: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files alone say that a video was done; a model whose bytes have changed is loaded and run."""
    patches(tmp_path / "v.mp4", 3)
    (tmp_path / "p.yaml").write_text(PROFILE)
    code = (
        "import sys, app.engine.embedded.model as m; o = m.open_session\n"
        "def say(path, *a): print('LOADED', path); return o(path, *a)\n"
        "import app.engine.embedded.sessions as e; e.open_session = say\n"
        "from app.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "analyze", "--profile-path", tmp_path / "p.yaml"]
    command += [
        "--repository",
        all_families,
        "--output",
        tmp_path / "out",
        "--video-path",
        tmp_path / "v.mp4",
    ]
    monkeypatch.setenv("GATEWAY_MANIFEST", "")
    said = [
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout for _ in "12"
    ]
    assert "LOADED" in said[0]
    assert said[1].startswith("skipped")
    assert "LOADED" not in said[1]
