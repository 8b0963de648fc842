"""Videos, jobs and the state of the service, against a real gateway, with both clients."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from services import KEY, OPERATOR, OTHER, Service

from triton_vision_gateway_client import (
    ConnectionFailed,
    DeadlineExceeded,
    InvalidRequest,
    JobFailed,
    NotFound,
    UnexpectedAnswer,
    VideoIncomplete,
    __version__,
)

DETECTIONS = "core_object_detections/detections.npz"
PROFILE = {
    "schema_version": 1,
    "sampling": {"every": 10},
    "components": {"core_object_detections": {"variant": "n"}},
}


def test_frames_come_one_by_one(client: Any, video: Path) -> None:
    """Each says what made it; the summary stands at the end."""
    frames = client.detect_video(video, every=10)
    indices = [(frame.index, frame.answer.branch.name) for frame in frames]
    assert [index for index, _ in indices] == list(range(0, 10 * len(indices), 10))
    assert len({name for _, name in indices}) == 1
    assert frames.received == len(indices) == frames.summary.frames
    assert frames.summary.complete
    assert frames.summary.models_used[0].weights == "random"


@pytest.mark.parametrize("source", ["path", "bytes", "file", "pipe"])
def test_every_kind_of_video(client: Any, inputs: Path, source: str) -> None:
    """A path, bytes, an open file, and a file that can't be rewound, whose length isn't known."""
    path = inputs / "numbered.mp4"

    class Pipe:
        def __init__(self) -> None:
            self._file = path.open("rb")

        def read(self, size: int) -> bytes:
            return self._file.read(size)

    with path.open("rb") as file:
        pipe = Pipe()
        given = {"path": path, "bytes": path.read_bytes(), "file": file, "pipe": pipe}[source]
        assert len(list(client.detect_video(given, every=25))) == 2
        pipe._file.close()


def test_other_families_of_videos(client: Any, inputs: Path) -> None:
    """Depth, flow, embeddings and scenes."""
    path = inputs / "numbered.mp4"
    assert next(iter(client.depth_video(path, every=49))).answer.depth.max == -1  # of black
    flows = list(client.flow_video(path, every=20))
    assert flows[0].answer.previous.index == 0
    embedded = [frame.answer for frame in client.embed_video(path, every=40)]
    assert [one.vector.shape for one in embedded] == [(512,)] * 2
    assert embedded[1].model_signature == embedded[0].model_signature
    assert all(len(frame.answer.places) == 2 for frame in client.places_video(path, every=40, k=2))


def test_a_stopped_video_ends(client: Any, inputs: Path) -> None:
    """Leaving the block ends the iteration; nothing more comes."""
    with client.detect_video(inputs / "numbered.mp4") as frames:
        assert next(frames).index == 0
    assert list(frames) == []


def test_a_damaged_video_says_so_after_its_frames(client: Any, inputs: Path) -> None:
    """All frames that could be read come first."""
    frames = client.detect_video(inputs / "damaged.avi")
    seen = []
    with pytest.raises(VideoIncomplete) as caught:
        seen.extend(frames)
    assert caught.value.frames == frames.received > 0
    assert not caught.value.summary.complete
    assert caught.value.code == "invalid_video"


def test_a_video_in_the_place_of_a_picture(client: Any, inputs: Path) -> None:
    """The exception names the call that is meant."""
    with pytest.raises(UnexpectedAnswer, match="detect_video"):
        client.detect(inputs / "numbered.mp4", every=25)


def test_no_video_is_refused_at_once(client: Any) -> None:
    """In the service's words."""
    with pytest.raises(InvalidRequest) as caught:
        list(client.detect_video(b"\x00" * 5000))
    assert "the body is no video" in caught.value.detail


def test_a_job(client: Any, video: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Submitted, followed with a bar, its files fetched and compared with the manifest, then removed."""
    job = client.submit(video, "detect_embedded")
    done = job.wait(progress=True)
    assert (done.state, done.partial, done.name) == ("done", False, "astronaut.mp4")
    assert "frame" in capfd.readouterr().err
    assert {DETECTIONS, "manifest.json"} <= set(job.artifacts)
    boxes = job.arrays(DETECTIONS)["boxes"]
    assert boxes.shape[0] == done.frames
    written = job.download_all(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in written} == set(job.artifacts)
    with np.load(tmp_path / DETECTIONS, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["boxes"], boxes)
    assert list(tmp_path.rglob("*.part")) == []
    assert job.id in {row.id for row in client.jobs(limit=1000, state=("done", "failed"))}
    page, ids = client.jobs(limit=1), []
    while True:
        ids += [row.id for row in page]
        if page.next is None:
            break
        page = client.jobs(limit=1, after=page.next)
    assert job.id in ids
    assert len(set(ids)) == len(ids)
    assert client.job(job.id).job.state == "done"
    assert not job.cancel()
    assert [event.event for event in job.events()] == ["done"]
    with pytest.raises(NotFound):
        job.artifact("nothing.npz")
    job.delete()
    with pytest.raises(NotFound):
        job.refresh()


@pytest.mark.parametrize("form", ["dictionary", "text", "file"])
def test_a_profile_of_one_s_own(client: Any, inputs: Path, tmp_path: Path, form: str) -> None:
    """A dictionary, text or a file is sent beside the video, which is streamed all the same."""
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(PROFILE), encoding="utf-8")
    profile = {"dictionary": PROFILE, "text": path.read_text(encoding="utf-8"), "file": path}[form]
    job = client.submit(inputs / "numbered.mp4", profile, name='a "name"')
    assert job.wait().frames == 5
    job.delete()


def test_a_job_is_cancelled(client: Any, inputs: Path) -> None:
    """It is gone then; who waits for it hears of it."""
    slow = {**PROFILE, "sampling": {"every": 1}}
    job = client.submit(inputs / "numbered.mp4", slow)
    job.cancel()
    job_id = job.id
    job = client.submit(inputs / "numbered.mp4", slow)
    job.delete()
    with pytest.raises(NotFound):
        job.wait()
    assert job.cancel() is False
    assert job_id != job.id


def test_waiting_has_a_limit(client: Any, inputs: Path) -> None:
    """The job goes on without its caller."""
    job = client.submit(inputs / "numbered.mp4", {**PROFILE, "sampling": {"every": 1}})
    with pytest.raises(DeadlineExceeded):
        job.wait(timeout=1e-9)
    assert job.wait().state == "done"
    job.delete()


def test_a_job_that_fails(client: Any, inputs: Path) -> None:
    """Its error is the exception's, or it is refused before it begins."""
    with pytest.raises((JobFailed, InvalidRequest)) as caught:
        client.submit(b"RIFF\x00\x00\x00\x00AVI LIST" + b"\x00" * 500, "detect_embedded").wait()
    assert caught.value.code == "invalid_video"


@contextmanager
def _receiver() -> Iterator[tuple[str, list[Any]]]:
    bodies: list[Any] = []
    came = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            came.set()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", bodies
        assert came.wait(120)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_callback(connect: Any, guarded: Service, inputs: Path) -> None:
    """The job's end is told to a URL that the service may call."""
    client = connect(guarded.url, api_key=KEY)
    with _receiver() as (url, bodies):
        job = client.submit(inputs / "numbered.mp4", PROFILE, callback_url=url)
        assert job.job.callback.url == url
        job.wait()
    assert bodies[0]["type"] == "video.done"
    assert bodies[0]["data"]["id"] == job.id


def test_a_callback_elsewhere_is_refused(client: Any, inputs: Path) -> None:
    """By a service that calls nobody."""
    with pytest.raises(InvalidRequest) as caught:
        client.submit(inputs / "numbered.mp4", PROFILE, callback_url="http://127.0.0.1:9/")
    assert caught.value.code == "url_refused"


@contextmanager
def _file_server(folder: Path) -> Iterator[str]:
    """A server of the files of a folder; yields its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_video_that_the_service_fetches(connect: Any, guarded: Service, inputs: Path) -> None:
    """Its source is shown without secrets; one that isn't there fails the job."""
    client = connect(guarded.url, api_key=KEY)
    with _file_server(inputs) as url:
        job = client.submit_source(f"{url}numbered.mp4?signature=secret", PROFILE, name="mine.mp4")
        assert job.job.source.url == f"{url}numbered.mp4?***"
        done = job.wait()
        assert (done.name, done.source.state) == ("mine.mp4", "fetched")
        assert done.bytes == (inputs / "numbered.mp4").stat().st_size
        with pytest.raises(JobFailed) as caught:
            client.submit_source(f"{url}none.mp4", PROFILE).wait()
    assert caught.value.code == "source_refused"


def test_a_source_elsewhere_is_refused(client: Any) -> None:
    """By a service that fetches nothing."""
    with pytest.raises(InvalidRequest) as caught:
        client.submit_source("https://media.example.com/x.mp4", PROFILE)
    assert caught.value.code == "source_not_allowed"


def test_jobs_belong_to_a_key(connect: Any, guarded: Service, inputs: Path) -> None:
    """Another key doesn't see them, and an operator does."""
    job = connect(guarded.url, api_key=KEY).submit(inputs / "numbered.mp4", PROFILE)
    other, operator = (connect(guarded.url, api_key=key) for key in (OTHER, OPERATOR))
    with pytest.raises(NotFound):
        other.job(job.id)
    assert other.jobs() == []
    found = operator.job(job.id)
    assert found.job.owner == "camera"
    found.wait()
    found.delete()


def test_the_service_itself(client: Any) -> None:
    """Liveness, readiness, version, catalogue, repository, metrics."""
    client.wait_ready()
    assert client.alive()
    assert client.readiness().ready
    assert client.readiness().failing == ()
    versions = client.version()
    assert versions.client == __version__
    assert versions.service == client.openapi()["info"]["version"]
    catalogue = client.branches(width=320, height=320)
    detect = catalogue.family("detect")
    assert detect.route is not None
    assert detect.route["branch"] == "yolo11n_320"
    assert {row.readiness for row in detect.branches if row.name == "yolo11n_320"} == {"ready"}
    with pytest.raises(KeyError):
        catalogue.family("nonsense")
    repository = client.repository()
    assert "yolo11n_640" in {row.name for row in repository.models}
    assert repository.missing
    assert "gateway_requests" in client.metrics()


def test_nobody_is_there(connect: Any) -> None:
    """A port that nothing listens on is neither alive nor an error of another kind."""
    client = connect("http://127.0.0.1:9", retries=1)
    assert not client.alive()
    with pytest.raises(ConnectionFailed) as caught:
        client.detect(b"")
    assert not caught.value.sent
    with pytest.raises(DeadlineExceeded):
        client.wait_ready(timeout=0.05)
