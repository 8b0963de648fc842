"""`gateway analyze` as a user runs it: real processes, real files, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from support import videos
from support.analysis import ARTIFACTS, EVERYTHING, arrays, patches, same_numbers
from support.paths import ROOT

from deploy.local.triton_server import TritonServer


@pytest.fixture
def setup(all_families: Path, tmp_path: Path) -> list[str]:
    """The options that every run here has; the profile has everything in it."""
    (tmp_path / "p.yaml").write_text(EVERYTHING)
    return ["--profile-path", str(tmp_path / "p.yaml"), "--repository", str(all_families)]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "app.cli", "analyze", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "GATEWAY_VARIANT": "n", "GATEWAY_EMBEDDED_THREADS": "1", "GATEWAY_MANIFEST": ""}


def run(*arguments: str | Path) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, the JSON line of each video, and stderr."""
    done = subprocess.run(
        command(*arguments, "--json"),
        check=False,  # the exit code is what is looked at
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


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


def test_interrupted_it_goes_on(setup: list[str], tmp_path: Path) -> None:
    """Ctrl-C in the middle: exit 130 with a line that says so; run again it resumes and ends as undisturbed."""
    long = patches(tmp_path / "long.mp4", 300)
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert run("--video-path", long, "--output", whole, *setup)[0] == 0
    with subprocess.Popen(
        command("--video-path", long, "--output", out, "--json", *setup),
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        limit = time.monotonic() + 60
        while not list(out.glob("long.mp4/.partial/chunk-*")):
            assert time.monotonic() < limit
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert (process.returncode, json.loads(said)["status"]) == (130, "interrupted")
    assert run("--video-path", long, "--output", out, *setup)[0] == 0
    assert json.loads((out / "long.mp4" / "manifest.json").read_text())["frames"]["resumed"] > 0
    assert same_numbers(whole / "long.mp4", out / "long.mp4")


def test_two_processes_don_t_get_in_each_other_s_way(setup: list[str], tmp_path: Path) -> None:
    """Over the same video one works and the other says busy; nothing is done twice or half."""
    long = patches(tmp_path / "long.mp4", 200)
    arguments = ("--video-path", long, "--output", tmp_path / "out", "--json", *setup)
    processes = [
        subprocess.Popen(command(*arguments), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    statuses = sorted(json.loads(process.communicate(timeout=90)[0])["status"] for process in processes)
    assert statuses in (["busy", "ok"], ["ok", "skipped"])
    assert [process.returncode for process in processes] == [0, 0]
    assert len(arrays(tmp_path / "out" / "long.mp4" / "core_clip" / "embeddings.npz")["times_s"]) == 200


def test_rendering_draws_boxes(setup: list[str], tmp_path: Path) -> None:
    """The annotated video has the frames, the size and the times of the samples, and something drawn on them."""
    source = patches(tmp_path / "v.mp4", 12)
    code, _, _ = run("--video-path", source, "--output", tmp_path / "out", "--render", *setup)
    assert code == 0
    with av.open(str(tmp_path / "out" / "v.mp4" / "annotated.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [(frame.width, frame.height) for frame in frames] == [(320, 256)] * 12
    assert [frame.time for frame in frames] == pytest.approx([n / 25 for n in range(12)], abs=1e-3)
    drawn = frames[0].to_ndarray(format="rgb24")[60:132, 60:132].astype(int)
    assert np.abs(drawn - np.array([255, 0, 0])).sum(2).min() < 120  # the patch
    assert (drawn[..., 2] > drawn[..., 0] + 40).any()  # a blue frame around it


@pytest.mark.triton
def test_a_triton_serves_it_too(all_families: Path, tmp_path: Path) -> None:
    """The profile's address comes from the environment; the numbers are those of the embedded engine."""
    source = patches(tmp_path / "v.mp4", 6)
    text = EVERYTHING + "engine: {kind: triton, triton_url: '${TRITON_URL:-127.0.0.1:1}'}\n"
    (tmp_path / "p.yaml").write_text(text)
    options = [
        "--profile-path",
        str(tmp_path / "p.yaml"),
        "--repository",
        str(all_families),
        "--video-path",
        str(source),
    ]
    with TritonServer(all_families, tmp_path / "log") as triton:
        done = subprocess.run(
            command(*options, "--output", tmp_path / "triton"), cwd=ROOT, timeout=120,
            env={**environment(), "TRITON_URL": triton.grpc_url}, check=True, capture_output=True, text=True,
        )  # fmt: skip
    assert done.stdout.startswith("ok ")
    assert run(*options, "--engine", "embedded", "--output", tmp_path / "embedded")[0] == 0
    manifests = [
        json.loads((tmp_path / kind / "v.mp4" / "manifest.json").read_text())
        for kind in ("triton", "embedded")
    ]
    assert [m["models_used"][0]["runtime"] for m in manifests] == ["triton", "inprocess"]
    assert manifests[0]["model_signature"] != manifests[1]["model_signature"]
    assert same_numbers(tmp_path / "triton" / "v.mp4", tmp_path / "embedded" / "v.mp4")
