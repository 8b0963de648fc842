"""Workers and drivers that are killed, over real videos: in the end everything is there, once, and equal to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from support.analysis import patches, same_numbers
from support.analyze_command import BOXES, ENVIRONMENT
from support.analyze_command import options as analyze_options
from support.analyze_command import run as analyze
from support.bulk.command import command, manifests, options, published
from support.paths import ROOT
from support.waiting import PATIENCE_S, ended, eventually

VIDEOS = 24


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what every run here has; the processes inherit it."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(VIDEOS):
        place = folder / f"cam{number % 3}"
        place.mkdir(exist_ok=True)
        patches(place / f"{number:04d}.mp4", 60 + number)
    return folder


@pytest.fixture(scope="module")
def straight(corpus: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one `gateway analyze` that nobody disturbs."""
    folder = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        given = analyze_options(repository, folder, BOXES)
        assert analyze("--video-path", corpus, "--output", folder / "out", *given)[0] == 0
    return folder / "out"


def workers(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The worker processes of a driver."""
    found = psutil.Process(driver.pid).children()
    return [child for child in found if any("popen_loky" in word for word in child.cmdline())]


def done(output: Path) -> int:
    return len(list((output / "videos").rglob("manifest.json")))


def test_workers_and_drivers_are_killed(
    corpus: Path, straight: Path, repository: Path, tmp_path: Path
) -> None:
    """A worker, then the driver, which is started again: one manifest per video, equal arrays, few attempts."""
    output = tmp_path / "out"
    given = command(corpus, *options(repository, tmp_path, BOXES), "--output", output, "--workers", "2")
    first = subprocess.Popen(given, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: done(output) >= 2)
        workers(first)[0].send_signal(signal.SIGKILL)
        eventually(lambda: done(output) >= 6)
        orphans = workers(first)
    finally:
        first.kill()
        first.wait()
    eventually(lambda: all(ended(process) for process in orphans))
    written = {path: path.stat().st_mtime_ns for path in (output / "videos").rglob("manifest.json")}
    assert len(written) < VIDEOS
    subprocess.run(given, cwd=ROOT, stdout=subprocess.DEVNULL, check=True, timeout=10 * PATIENCE_S)
    assert len(manifests(output)) == VIDEOS
    assert all(path.stat().st_mtime_ns == at for path, at in written.items())
    for name in manifests(output):
        assert same_numbers(straight / name, output / "videos" / name), name
    rows = published(output)
    assert max(row["attempts"] for row in rows) <= 3
    latest = {row["name"]: row["state"] for row in rows}
    assert set(latest.values()) <= {"done", "skipped"}
    assert len(latest) == VIDEOS
    assert list((output / "run").glob("attempts/*")) == []
    assert [path for path in output.rglob("*") if path.name == ".partial"] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_soon_and_continues(
    corpus: Path, straight: Path, repository: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Exit 130, no worker is left, rows of what is done; the same command does the rest, and nothing twice."""
    output = tmp_path / "out"
    given = command(corpus, *options(repository, tmp_path, BOXES), "--output", output, "--workers", "2")
    driver = subprocess.Popen(given, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: done(output) >= 2)
        children = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(number)
        said, _ = driver.communicate(timeout=PATIENCE_S)
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode == 130
    assert b"run the command again" in said
    eventually(lambda: all(ended(process) for process in children))
    rows = {row["name"] for row in published(output)}
    assert set(manifests(output)) == rows
    assert len(rows) < VIDEOS
    again = subprocess.run(given, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=10 * PATIENCE_S)
    assert again.stdout.count(b"skipped") >= len(rows)
    assert len(manifests(output)) == VIDEOS
    assert all(same_numbers(straight / name, output / "videos" / name) for name in manifests(output))
    assert os.path.lexists(output / "run" / "run.json")
