"""The name of a video's job."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.servers.gateway import client
from support.videos import count
from support.waiting import PATIENCE_S

from app.api.request.file_names import clean_name

PROFILE = "components: {core_object_detections: {variant: n}}"


@pytest.fixture(scope="module")
def gateway(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Detection, and a folder for videos."""
    with client(repository, videos_folder=tmp_path_factory.mktemp("videos")) as test_client:
        yield test_client


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return count(tmp_path_factory.mktemp("video") / "count.mp4", 3).read_bytes()


def submit(gateway: TestClient, video: bytes, filename: str, query: str = "", **fields: str) -> Any:
    return gateway.post(
        f"/v1/videos{query}", files={"file": (filename, video)}, data={"profile": PROFILE, **fields}
    )


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("holiday 7.mp4", "holiday 7.mp4"),
        ("../../etc/holiday.mp4", "holiday.mp4"),
        ("C:\\videos\\holiday.mp4", "holiday.mp4"),
        ("päivä 日本 🎉.mp4", "päivä 日本 🎉.mp4"),
    ],
)
def test_a_file_s_name_is_the_job_s(gateway: TestClient, video: bytes, filename: str, name: str) -> None:
    """Without its path."""
    assert submit(gateway, video, filename).json()["name"] == name


def test_the_name_stands_in_the_manifest(gateway: TestClient, video: bytes) -> None:
    """The manifest has the name as `input.name`."""
    job = submit(gateway, video, "holiday 7.mp4").json()
    limit = time.monotonic() + PATIENCE_S
    while (view := gateway.get(f"/v1/videos/{job['id']}").json())["state"] not in ("done", "failed"):
        assert time.monotonic() < limit, view
        time.sleep(0.02)
    assert view["manifest"]["input"]["name"] == "holiday 7.mp4"
    assert "holiday 7.mp4" in json.dumps(gateway.get("/v1/videos").json())


def test_a_name_goes_before_the_file_s(gateway: TestClient, video: bytes) -> None:
    """In the query or in the form, but not in both."""
    assert submit(gateway, video, "a.mp4", "?name=b").json()["name"] == "b"
    assert submit(gateway, video, "a.mp4", name="c").json()["name"] == "c"
    both = submit(gateway, video, "a.mp4", "?name=b", name="b")
    assert (both.status_code, both.json()["code"]) == (400, "invalid_parameter")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a/b\\c.mp4", "a_b_c.mp4"),
        ("a\u202egpj.mp4", "agpj.mp4"),
        ("a\0b\r\nc\x1b[31m.mp4", "abc[31m.mp4"),
        ("\u2028a\u00a0b", "a b"),
        ("\ud800a", "a"),
        ("<script>alert('1')</script>", "_script_alert(_1_)__script_"),
        ("..", ""),
        (" .hidden. ", "hidden"),
        ("e\u0301.mp4", "\u00e9.mp4"),
        ("x" * 300, "x" * 200),
        ("", ""),
    ],
)
def test_a_name_is_words_for_people(text: str, name: str) -> None:
    """Nothing that a path, a page or a terminal takes for something else."""
    assert clean_name(text) == name
