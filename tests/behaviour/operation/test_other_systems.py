"""The embedded engine serves where nothing is that only Linux has: pictures, videos, jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from support import videos
from support.paths import ROOT
from support.servers import gateway as gateways
from support.servers.listening import gateway
from support.waiting import PATIENCE_S, eventually

from deploy.local.triton_server import free_ports

HIDES = ROOT / "tests" / "helpers" / "other_system"


@pytest.fixture(scope="module")
def http(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A gateway that has no epoll, no memfd, no /proc, no /dev/shm, no packets, no prctl, no glibc."""
    folder, (port,) = tmp_path_factory.mktemp("other"), free_ports(1)
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
        ready = lambda: client.get("/readyz").status_code == 200  # noqa: E731
        more = {"PYTHONPATH": HIDES, "port": port, "videos_folder": folder / "videos"}
        with gateway(repository, folder / "log", ready, **more):
            yield client


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    pictures = [gateways.scene(320, 240, (1, 32 * (n % 5), 64, 32)) for n in range(12)]
    return videos.write(tmp_path_factory.mktemp("film") / "film.mp4", pictures).read_bytes()


def test_it_hides_what_it_says() -> None:
    """Otherwise the other tests would show nothing."""
    code = """
import os, select
print(hasattr(os, "memfd_create"), hasattr(select, "epoll"))
try:
    open("/proc/self/maps")
except FileNotFoundError:
    print("gone")
"""
    environment = {**os.environ, "PYTHONPATH": str(HIDES)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["False", "False", "gone"]


def test_a_picture_is_answered(http: httpx2.Client) -> None:
    """The boxes are those that the picture has."""
    answer = http.post("/v1/detect", content=gateways.png(gateways.scene(320, 240, (1, 64, 64, 32)))).json()
    assert {box["class_id"] for box in answer["detections"]} == {1}


def test_a_video_is_answered_line_by_line(http: httpx2.Client, film: bytes) -> None:
    """Its decoder's process runs, confined as far as the system can."""
    answer = http.post("/v1/detect", content=film, headers={"Content-Type": "video/mp4"})
    assert answer.status_code == 200, answer.text
    lines = [json.loads(line) for line in answer.text.splitlines()]
    frames = [line for line in lines if "detections" in line]
    assert len(frames) == 12, answer.text
    assert {box["class_id"] for line in frames for box in line["detections"]} == {1}


def test_a_broken_video_is_refused(http: httpx2.Client, film: bytes) -> None:
    """The words of the decoder arrive, too."""
    answer = http.post("/v1/detect", content=film[:600], headers={"Content-Type": "video/mp4"})
    assert answer.json()["code"] == "invalid_video"


def test_a_video_job_ends_well(http: httpx2.Client, film: bytes) -> None:
    """The ledger of jobs locks its files by means that every POSIX system has."""
    profile = (ROOT / "profiles" / "detect_embedded.yaml").read_text(encoding="utf-8")
    made = http.post("/v1/videos", files={"file": ("film.mp4", film)}, data={"profile": profile})
    assert made.status_code in {200, 201, 202}, made.text
    address = made.headers.get("location") or f"/v1/videos/{made.json()['id']}"
    eventually(lambda: http.get(address).json()["state"] in {"done", "failed"})
    assert http.get(address).json()["state"] == "done", http.get(address).text
