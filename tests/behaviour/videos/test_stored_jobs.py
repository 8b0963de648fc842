"""Jobs that an earlier version stored with values that are refused today: they can be read, listed and removed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.analysis import PROFILES
from support.servers.gateway import client

from app.state.jobs import Job, JobIndex

PROFILE = PROFILES.parse("components: {core_object_detections: {variant: n}}").to_dict()
# What is stored, and what is wrong with it.
QUEUED = {
    "stride": PROFILE | {"sampling": {"every": 10**29}},
    "digits": PROFILE | {"schema_version": 10**400},
    "surrogate": {"components": {"core_clip": {"prompts": {"a": ["\ud83d"]}}}},
    "tracker": {"components": {"core_object_detections": {"track": {"match": 0}}}},
}
DONE = {
    "done-stride": {"config": {"sampling": {"every": 10**29}}},
    "done-surrogate": {"config": {"prompts": ["\ud83d", "\U0001f600"]}},
    "done-both": {"config": {"name": "\ud83d", "every": 10**29, "fps": 2.5}},
}
MANIFEST = {"input": {}, "config_hash": "x", "model_signature": "x", "video": {}, "artifacts": []}


def keep(folder: Path) -> None:
    """Fill a folder as a service of another version left it."""
    now = time.time()
    folder.mkdir()
    index = JobIndex.in_folder(folder)
    for name, profile in QUEUED.items():
        (folder / name).mkdir()
        (folder / name / "profile.json").write_text(json.dumps(profile))
        (folder / name / "input").write_bytes(b"not looked at")
        index.add(Job(name, "queued", "v.mp4", "inline", 13, "0" * 64, now), 100)
    for name, manifest in DONE.items():
        (folder / name / "output").mkdir(parents=True)
        (folder / name / "output" / "manifest.json").write_text(json.dumps(MANIFEST | manifest))
        index.add(Job(name, "done", "v.mp4", "inline", 13, "0" * 64, now, finished=now), 100)
    index.close()


@pytest.fixture(scope="module")
def gateway(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service that finds such jobs when it starts."""
    folder = tmp_path_factory.mktemp("kept") / "videos"
    keep(folder)
    with client(repository, videos_folder=folder) as test_client:
        yield test_client


def over(gateway: TestClient, name: str) -> dict[str, Any]:
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        response = gateway.get(f"/v1/videos/{name}")
        assert response.status_code == 200, response.text
        view: dict[str, Any] = response.json()
        if view["state"] in ("done", "failed"):
            return view
        time.sleep(0.05)
    raise AssertionError(f"{name} is never over")


@pytest.mark.parametrize("name", QUEUED)
def test_a_queued_job_with_a_bad_value_fails_with_a_reason(gateway: TestClient, name: str) -> None:
    """The job fails at once with our message, and every request about it is answered."""
    error = over(gateway, name)["error"]
    assert error["code"] == "invalid_parameter"
    assert error["detail"].startswith("profile.json: ")


@pytest.mark.parametrize("name", DONE)
def test_a_finished_job_with_a_bad_value_can_be_read(gateway: TestClient, name: str) -> None:
    """Integers beyond 64 bits are answered as they are, lone surrogates as question marks, all else unharmed."""
    config = json.loads(json.dumps(DONE[name]["config"]).replace('"\\ud83d"', '"?"'))
    assert over(gateway, name)["manifest"]["config"] == config
    events = gateway.get(f"/v1/videos/{name}/events")
    assert (events.status_code, "event: done" in events.text) == (200, True)


def test_the_list_has_them_all(gateway: TestClient) -> None:
    """No value of one job hides the others."""
    rows = gateway.get("/v1/videos").json()["videos"]
    assert {row["id"] for row in rows} == {*QUEUED, *DONE}


def test_they_can_be_removed(repository: Path, tmp_path: Path) -> None:
    """Deleting reads none of the values."""
    keep(tmp_path / "videos")
    with client(repository, videos_folder=tmp_path / "videos") as gateway:
        for name in (*QUEUED, *DONE):
            assert gateway.delete(f"/v1/videos/{name}").status_code == 204
        assert gateway.get("/v1/videos").json()["videos"] == []
