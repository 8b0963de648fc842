"""Video jobs of two gateways over one PostgreSQL and one bucket: any of them answers, and each job has one result."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.analysis import opened, patches, pipeline_set, profile, same_numbers
from support.databases.postgres import PostgresServer
from support.servers.cable import Cable
from support.servers.gateway import server
from support.servers.s3 import S3Server, reachable
from support.waiting import PATIENCE_S, eventually

from app.videos.analysis import VideoAnalysis
from app.videos.stores.folder import FolderStore

BOXES = "components: {core_object_detections: {variant: n}}\n"
LEASE_S = 10


@dataclass(frozen=True, slots=True)
class Shared:
    """The services behind the gateways."""

    postgres: PostgresServer
    database: str
    s3: S3Server
    bucket: str

    def row(self, video_id: str) -> tuple[Any, ...]:
        with psycopg.connect(self.database) as connection:
            found = connection.execute("SELECT * FROM jobs WHERE id = %s", (video_id,)).fetchone()
            assert found is not None
            return found

    def fence(self, video_id: str) -> int:
        with psycopg.connect(self.database) as connection:
            found = connection.execute("SELECT fence FROM jobs WHERE id = %s", (video_id,)).fetchone()
            assert found is not None
            return int(found[0])

    def keys(self, prefix: str) -> set[str]:
        """The keys of all objects below a prefix."""
        name = self.bucket.removeprefix("s3://")
        listed = self.s3.client().list_objects_v2(Bucket=name, Prefix=prefix)
        return {row["Key"] for row in listed.get("Contents", ())}

    def digests(self, prefix: str) -> dict[str, str]:
        """The digests of all objects below a prefix, by key."""
        client, name = self.s3.client(), self.bucket.removeprefix("s3://")
        return {
            key: hashlib.sha256(client.get_object(Bucket=name, Key=key)["Body"].read()).hexdigest()
            for key in self.keys(prefix)
        }

    def tidied(self, prefix: str) -> bool:
        """Files that a job doesn't need after its end are gone, which comes a moment after the end."""
        return not any("input" in key or "checkpoint" in key for key in self.keys(prefix))


@pytest.fixture(scope="module")
def parts() -> Iterator[tuple[PostgresServer, S3Server]]:
    with PostgresServer() as postgres, S3Server() as s3, reachable(s3):
        yield postgres, s3


@pytest.fixture
def shared(parts: tuple[PostgresServer, S3Server]) -> Shared:
    postgres, s3 = parts
    database = postgres.database()
    return Shared(postgres, database, s3, s3.bucket(database.rpartition("_")[2]))


Gateway = tuple[Any, int]


@pytest.fixture
def start(shared: Shared, all_families: Path, tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts one more gateway: a client, and its process."""
    with contextlib.ExitStack() as stack:
        count = 0

        def build(**settings: Any) -> Gateway:
            nonlocal count
            count += 1
            given = {
                "videos_folder": tmp_path / f"local-{count}", "job_store": shared.database,
                "job_artifacts": f"{shared.bucket}/jobs", "job_lease_s": LEASE_S, "embedded_threads": 1,
            }  # fmt: skip
            log = tmp_path / f"gateway-{count}.log"
            return stack.enter_context(server(all_families, log, **{**given, **settings}))

        yield build


def submit(http: Any, video: bytes, text: str = BOXES) -> str:
    answer = http.post("/v1/videos", files={"file": ("v.mp4", video)}, data={"profile": text})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def until(http: Any, video_id: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def look() -> bool:
        answer = http.get(f"/v1/videos/{video_id}")
        found.clear()
        found.update(answer.json())
        return bool(answer.status_code == 200 and true(found))

    eventually(look)
    return found


def over(view: dict[str, Any]) -> bool:
    return view["state"] in ("done", "failed")


def under_way(view: dict[str, Any]) -> bool:
    return bool(view["state"] == "running" and view["frames"] > 20)


def checked(http: Any, view: dict[str, Any]) -> None:
    """Every artefact is the one that the manifest names."""
    for row in view["manifest"]["artifacts"]:
        answer = http.get(f"/v1/videos/{view['id']}/artifacts/{row['name']}")
        assert answer.status_code == 200, answer.text
        assert hashlib.sha256(answer.content).hexdigest() == row["sha256"]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return patches(tmp_path_factory.mktemp("video") / "short.mp4").read_bytes()


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return patches(tmp_path_factory.mktemp("video") / "long.mp4", 1500)


def test_any_gateway_answers_for_any_job(start: Callable[..., Gateway], shared: Shared, short: bytes) -> None:
    """Each is run once, wherever it came from; both show, list, give out and delete it."""
    (one, _), (other, _) = start(), start()
    ids = [submit(http, short) for http in (one, other, one, other)]
    views = [until(other, video_id, over) for video_id in ids]
    assert {(view["state"], view["attempts"]) for view in views} == {("done", 1)}
    for http in (one, other):
        assert {row["id"] for row in http.get("/v1/videos").json()["videos"]} == set(ids)
        for view in views:
            checked(http, view)
    with one.stream("GET", f"/v1/videos/{ids[0]}/events") as events:
        assert "event: done" in events.read().decode()
    part = one.get(f"/v1/videos/{ids[0]}/artifacts/manifest.json", headers={"Range": "bytes=0-9"})
    assert (part.status_code, len(part.content)) == (206, 10)
    name = f"/v1/videos/{ids[0]}/artifacts/core_object_detections/detections.coco.json"
    assert one.get(name).content == other.get(name).content
    eventually(lambda: shared.tidied("jobs/"))
    assert other.delete(f"/v1/videos/{ids[0]}").status_code == 204
    assert one.get(f"/v1/videos/{ids[0]}").status_code == 404
    eventually(lambda: not shared.keys(f"jobs/{ids[0]}/"))


def test_a_job_whose_commit_has_no_answer_is_kept(
    start: Callable[..., Gateway], shared: Shared, short: bytes
) -> None:
    """Its row is there, so its files stay, and the caller hears of it."""
    with Cable(f"127.0.0.1:{shared.postgres.port}") as cable:
        database = shared.database.replace(f"127.0.0.1:{shared.postgres.port}", cable.url)
        http, _ = start(job_store=database)
        cable.loses = (b"INSERT INTO jobs", b"COMMIT")
        video_id = submit(http, short)
        cable.loses = ()
        assert until(http, video_id, over)["state"] == "done"


def who_runs(folder: Path, gateways: list[Gateway]) -> tuple[Gateway, Gateway]:
    """The gateway that runs a job, and the one that doesn't: the first has its chunks in its local folder."""
    found: list[int] = []

    def look() -> bool:
        chunks = [any((folder / f"local-{n}").glob(".scratch/*/chunks-*/chunk-*")) for n in (1, 2)]
        found.extend(n for n, there in enumerate(chunks) if there)
        return bool(found)

    eventually(look)
    return gateways[found[0]], gateways[1 - found[0]]


def test_the_job_of_a_killed_gateway_is_continued_by_another(
    start: Callable[..., Gateway], shared: Shared, long: Path, all_families: Path, tmp_path: Path
) -> None:
    """From the last chunk in the bucket, and with the artefacts of an undisturbed run."""
    gateways = [start(), start()]
    video_id = submit(gateways[0][0], long.read_bytes())
    (_, pid), (other, _) = who_runs(tmp_path, gateways)
    eventually(lambda: any("/checkpoint/" in key for key in shared.keys(f"jobs/{video_id}/")))
    os.kill(pid, signal.SIGKILL)
    view = until(other, video_id, over)
    assert (view["state"], view["attempts"], view["manifest"]["frames"]["resumed"] > 0) == ("done", 2, True)
    checked(other, view)
    eventually(lambda: shared.tidied(f"jobs/{video_id}/"))
    assert {key.split("/")[2] for key in shared.keys(f"jobs/{video_id}/")} == {"2", "profile.json"}
    with opened(long) as given, pipeline_set(all_families) as pipelines:
        alone = VideoAnalysis(pipelines, profile(text=BOXES), FolderStore(tmp_path / "alone"), "x").run(given)
    for row in view["manifest"]["artifacts"]:
        path = tmp_path / "other" / row["name"]
        path.parent.mkdir(parents=True)
        path.write_bytes(other.get(f"/v1/videos/{video_id}/artifacts/{row['name']}").content)
    assert alone["model_signature"] == view["manifest"]["model_signature"]
    assert same_numbers(tmp_path / "alone", tmp_path / "other")


def test_a_gateway_that_was_suspended_beyond_its_lease_changes_nothing(
    start: Callable[..., Gateway], shared: Shared, short: bytes, long: Path, tmp_path: Path
) -> None:
    """Another finishes its job; resumed, it leaves the row, the manifest and all that can be seen as they are."""
    gateways = [start(), start()]
    video_id = submit(gateways[0][0], long.read_bytes())
    (stale, pid), (other, _) = who_runs(tmp_path, gateways)
    os.kill(pid, signal.SIGSTOP)
    try:
        view = until(other, video_id, over)
        assert (view["state"], view["attempts"], shared.fence(video_id)) == ("done", 2, 2)
        eventually(lambda: shared.tidied(f"jobs/{video_id}/2/"))
        row, visible = shared.row(video_id), shared.digests(f"jobs/{video_id}/2/")
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: stale.get("/readyz").status_code == 200)
    # Until it runs another one it has given the lost one up.
    assert until(stale, submit(stale, short), over)["state"] == "done"
    eventually(lambda: not any(tmp_path.glob("local-*/.scratch/*/chunks-*")))
    assert (shared.row(video_id), shared.digests(f"jobs/{video_id}/2/")) == (row, visible)
    for http in (stale, other):
        again = until(http, video_id, over)
        assert again == view
        checked(http, again)


def test_without_postgresql_jobs_are_refused_and_those_that_run_go_on(
    start: Callable[..., Gateway], short: bytes, long: Path, tmp_path: Path
) -> None:
    """A gateway starts without it, too; when it is back, everything is as it was."""
    with PostgresServer() as postgres:
        settings = {"job_store": postgres.url, "job_artifacts": tmp_path / "shared"}
        first, _ = start(**settings)
        video_id = submit(first, long.read_bytes())
        until(first, video_id, under_way)
        postgres.kill()
        began = time.monotonic()
        answer = first.post("/v1/videos", files={"file": ("v.mp4", short)}, data={"profile": BOXES})
        assert (answer.status_code, answer.json()["code"]) == (503, "videos_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert time.monotonic() - began < PATIENCE_S / 2
        assert first.get("/readyz").status_code == 200
        second, _ = start(**settings)
        assert second.get(f"/v1/videos/{video_id}").status_code == 503
        postgres.start()
        view = until(second, video_id, over)
        assert (view["state"], view["attempts"]) == ("done", 1)
        checked(second, view)
        assert until(first, submit(second, short), over)["state"] == "done"
