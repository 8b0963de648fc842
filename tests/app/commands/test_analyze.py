"""`gateway analyze` as a user runs it: real files, exit codes, and processes where one is interrupted or two meet."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support import videos
from support.analysis import ARTIFACTS, EVERYTHING, arrays, patches, same_numbers
from support.analyze_command import BOXES, ENVIRONMENT, command, options, run, run_interrupted
from support.paths import ROOT

from deploy.local.triton_server import TritonServer


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what every run here has, in this process and in those that it starts."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def setup(all_families: Path, tmp_path: Path) -> list[str]:
    """The options that every run here has; the profile has everything in it."""
    return options(all_families, tmp_path, EVERYTHING)


@pytest.fixture
def boxes(repository: Path, tmp_path: Path) -> list[str]:
    """The same with a profile of boxes alone."""
    return options(repository, tmp_path, BOXES)


def test_a_video_a_folder_and_a_list(setup: list[str], tmp_path: Path) -> None:
    """Each video gets a folder of its own; done ones are skipped the next time, unless forced."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    patches(folder / "a.mp4", 4)
    patches(folder / "deep" / "b.mkv", 4)
    (folder / "notes.md").write_text("no video")
    (tmp_path / "list.txt").write_text("# one a line\nin/a.mp4\n")
    code, rows, _ = run("--video-path", folder, "--output", tmp_path / "out", *setup)
    assert (code, [row["status"] for row in rows]) == (0, ["ok", "ok"])
    for name in ("a.mp4", "deep/b.mkv"):
        found = {
            str(path.relative_to(tmp_path / "out" / name)) for path in (tmp_path / "out" / name).rglob("*.*")
        }
        assert found == {*ARTIFACTS, "manifest.json"}
    code, rows, _ = run("--video-path", tmp_path / "list.txt", "--output", tmp_path / "out", *setup)
    assert (code, [row["status"] for row in rows]) == (0, ["ok"])
    assert rows[0]["output"] == str(tmp_path / "out" / "in" / "a.mp4")
    code, rows, _ = run("--video-path", tmp_path / "list.txt", "--output", tmp_path / "out", *setup)
    assert (code, [row["status"] for row in rows]) == (0, ["skipped"])
    code, rows, _ = run("--video-path", folder / "a.mp4", "--output", tmp_path / "out", "--force", *setup)
    assert (code, [row["status"] for row in rows]) == (0, ["ok"])


def test_exit_codes_tell(setup: list[str], tmp_path: Path) -> None:
    """Broken off: 3; one that fails among others: 1, and the others are done; a wrong command: 2."""
    whole = patches(tmp_path / "whole.mkv", 40)
    broken = videos.cut(whole, 0.5)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"text")
    code, rows, _ = run("--video-path", broken, "--output", tmp_path / "out", *setup)
    assert (code, rows[0]["status"]) == (3, "partial")
    assert rows[0]["detail"].startswith("invalid_video: after frame")
    code, again, _ = run("--video-path", broken, "--output", tmp_path / "out", *setup)
    assert (code, again[0]["status"], again[0]["detail"]) == (3, "partial", rows[0]["detail"])
    code, rows, _ = run("--video-path", bad, whole, "--output", tmp_path / "out", *setup)
    assert (code, [row["status"] for row in rows]) == (1, ["failed", "ok"])
    assert rows[0]["detail"].startswith("unsupported_media_type: ")
    code, rows, said = run("--video-path", tmp_path / "nope.mp4", "--output", tmp_path / "out", *setup)
    assert (code, rows, "no such video" in said) == (2, [], True)
    (tmp_path / "p.yaml").write_text("components: {core_depth: {}}")
    code, _, said = run("--video-path", whole, "--output", tmp_path / "out", *setup)
    assert (code, "core_depth: unknown key" in said) == (2, True)


def test_interrupted_it_goes_on(boxes: list[str], tmp_path: Path) -> None:
    """Ctrl-C in the middle: exit 130 with a line that says so; run again it resumes and ends as undisturbed."""
    long = patches(tmp_path / "long.mp4", 300)
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert run("--video-path", long, "--output", whole, *boxes)[0] == 0
    code, rows = run_interrupted(1, signal.SIGINT, "--video-path", long, "--output", out, *boxes)
    assert (code, [row["status"] for row in rows]) == (130, ["interrupted"])
    assert run("--video-path", long, "--output", out, *boxes)[0] == 0
    assert json.loads((out / "long.mp4" / "manifest.json").read_text())["frames"]["resumed"] > 0
    assert same_numbers(whole / "long.mp4", out / "long.mp4")


def test_two_processes_don_t_get_in_each_other_s_way(boxes: list[str], tmp_path: Path) -> None:
    """Over the same video one works and the other says busy; nothing is done twice or half."""
    long = patches(tmp_path / "long.mp4", 100)
    arguments = ("--video-path", long, "--output", tmp_path / "out", "--json", *boxes)
    processes = [
        subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    statuses = sorted(json.loads(process.communicate(timeout=300)[0])["status"] for process in processes)
    assert statuses in (["busy", "ok"], ["ok", "skipped"])
    assert [process.returncode for process in processes] == [0, 0]
    found = arrays(tmp_path / "out" / "long.mp4" / "core_object_detections" / "detections.npz")
    assert len(found["times_s"]) == 100


def test_rendering_draws_boxes(boxes: list[str], tmp_path: Path) -> None:
    """The annotated video has the frames, the size and the times of the samples, and something drawn on them."""
    source = patches(tmp_path / "v.mp4", 12)
    code, _, _ = run("--video-path", source, "--output", tmp_path / "out", "--render", *boxes)
    assert code == 0
    with av.open(str(tmp_path / "out" / "v.mp4" / "annotated.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [(frame.width, frame.height) for frame in frames] == [(320, 256)] * 12
    assert [frame.time for frame in frames] == pytest.approx([n / 25 for n in range(12)], abs=1e-3)
    drawn = frames[0].to_ndarray(format="rgb24")[60:132, 60:132].astype(int)
    assert np.abs(drawn - np.array([255, 0, 0])).sum(2).min() < 120  # the patch
    assert (drawn[..., 2] > drawn[..., 0] + 40).any()  # a blue frame around it


def test_formats_are_made_of_what_is_done(
    boxes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later ones need no model and change no artefact; a file that is gone is made again, the others stay."""
    source, done = patches(tmp_path / "v.mp4", 12), tmp_path / "out" / "v.mp4"
    given = ["--video-path", source, "--output", tmp_path / "out", *boxes]
    assert run(*given, "--format", "npz")[0] == 0
    artifact = done / "core_object_detections" / "detections.npz"
    before = artifact.read_bytes()

    def no_engine(*_: object) -> None:
        raise AssertionError("no model is needed")

    monkeypatch.setattr("app.commands.analysis_backend.create_engine", no_engine)
    code, (row,), _ = run(*given, "--format", "parquet,coco", "--format", "sheet", "--render")
    assert (code, row["status"]) == (0, "ok")
    made = {
        "core_object_detections/detections.parquet", "core_object_detections/detections.coco.json",
        "contact_sheet.jpg", "annotated.mp4",
    }  # fmt: skip
    listed = json.loads((done / "manifest.json").read_text())["derived"]
    assert {one["name"] for one in listed} == made
    assert all((done / one["name"]).stat().st_size == one["bytes"] for one in listed)
    assert artifact.read_bytes() == before
    table = done / "core_object_detections" / "detections.parquet"
    content = table.read_bytes()
    table.unlink()
    assert run(*given)[1][0]["status"] == "skipped"  # nobody asks for it
    (row,) = run(*given, "--format", "parquet,coco,mp4")[1]
    assert (row["status"], "made core_object_detections/detections.parquet from" in row["detail"]) == (
        "ok",
        True,
    )
    assert table.read_bytes() == content
    assert run(*given, "--format", "parquet,coco,mp4,sheet")[1][0]["status"] == "skipped"
    with Image.open(done / "contact_sheet.jpg") as sheet:
        assert sheet.size == (4 * 332, 3 * 286 + 6)


def test_formats_that_can_t_be_made_are_told(
    boxes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a video is opened: unknown names, a missing package, boxes of a profile that has none."""
    given = ["--video-path", patches(tmp_path / "v.mp4", 2), "--output", tmp_path / "out", *boxes]
    code, _, said = run(*given, "--format", "npz,parket")
    assert (code, "'parket' is none of npz, parquet, coco, mp4, sheet; did you mean 'parquet'?" in said) == (
        2,
        True,
    )
    monkeypatch.setattr("app.extras.importlib.util.find_spec", lambda _: None)
    code, _, said = run(*given, "--format", "parquet")
    assert (code, "tables need pyarrow: pip install" in said) == (2, True)
    (tmp_path / "p.yaml").write_text("components: {places365: {}}")
    code, _, said = run(*given, "--format", "coco")
    assert (code, "the profile has no core_object_detections" in said) == (2, True)
    assert not (tmp_path / "out").exists()


def test_forced_again_the_files_of_before_are_gone(boxes: list[str], tmp_path: Path) -> None:
    """None of an earlier run's files stands beside the new numbers."""
    given = ["--video-path", patches(tmp_path / "v.mp4", 2), "--output", tmp_path / "out", *boxes]
    run(*given, "--format", "coco")
    coco = tmp_path / "out" / "v.mp4" / "core_object_detections" / "detections.coco.json"
    assert coco.exists()
    run(*given, "--force")
    assert not coco.exists()


@pytest.mark.triton
def test_a_triton_serves_it_too(
    repository: Path, triton: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The profile's address comes from the environment; the numbers are those of the embedded engine."""
    source = patches(tmp_path / "v.mp4", 6)
    text = BOXES + "engine: {kind: triton, triton_url: '${TRITON_URL:-127.0.0.1:1}'}\n"
    given = ["--video-path", source, *options(repository, tmp_path, text)]
    monkeypatch.setenv("TRITON_URL", triton.grpc_url)
    for arguments in (
        ["--output", tmp_path / "triton"],
        ["--output", tmp_path / "embedded", "--engine", "embedded"],
    ):
        code, (row,), _ = run(*given, *arguments)
        assert (code, row["status"]) == (0, "ok")
    manifests = [
        json.loads((tmp_path / kind / "v.mp4" / "manifest.json").read_text())
        for kind in ("triton", "embedded")
    ]
    assert [m["models_used"][0]["runtime"] for m in manifests] == ["triton", "inprocess"]
    assert manifests[0]["model_signature"] != manifests[1]["model_signature"]
    assert same_numbers(tmp_path / "triton" / "v.mp4", tmp_path / "embedded" / "v.mp4")
