"""Videos to the frame routes: one line per frame for any video, and nothing left behind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from starlette.testclient import TestClient
from support import videos
from support.analysis import patches
from support.models.engines import colour_detector
from support.servers.gateway import client, server
from support.waiting import PATIENCE_S, eventually

from app.api.openapi import schemas
from app.api.openapi.families.clip import EmbeddingAnswer
from app.api.openapi.families.depth import DepthAnswer
from app.api.openapi.families.detect import DetectAnswer
from app.api.openapi.families.flow import FlowAnswer
from app.api.openapi.families.places import PlacesAnswer
from app.engine.fake import FakeEngine
from app.errors import InsufficientGpuMemory

FRAMES = 12


@pytest.fixture(scope="module")
def everything(all_families: Path) -> Iterator[TestClient]:
    """Ready, with a branch of every family."""
    with client(all_families, video_stall_s=10) as test_client:
        yield test_client


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Twelve frames at 25 a second."""
    return patches(tmp_path_factory.mktemp("video") / "patches.mp4", FRAMES).read_bytes()


def lines(response: Any) -> list[dict[str, Any]]:
    """The lines of an answer."""
    assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson"), (
        response.text
    )
    return [json.loads(line) for line in response.text.splitlines()]


def problem(response: Any) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, schemas.Problem.model_validate(response.json()).code


ROUTES = {
    "/v1/detect": (DetectAnswer, FRAMES),
    "/v1/depth?branch=256": (DepthAnswer, FRAMES),
    "/v1/flow?branch=256": (FlowAnswer, FRAMES - 1),
    "/v1/clip/image?encoding=base64": (EmbeddingAnswer, FRAMES),
    "/v1/places?k=2": (PlacesAnswer, FRAMES),
}


@pytest.mark.parametrize("route", ROUTES)
def test_each_line_is_the_answer_to_a_frame(everything: TestClient, video: bytes, route: str) -> None:
    """In order, in the form of the route's JSON answer with its provenance, then the summary."""
    form, count = ROUTES[route]
    *frames, last = lines(everything.post(route, content=video))
    assert len(frames) == count
    first = FRAMES - count
    assert [line.pop("frame") for line in frames] == [
        {"index": index, "time_s": pytest.approx(index / 25)} for index in range(first, FRAMES)
    ]
    for line in frames:
        timings = line.pop("timings_ms")
        assert set(timings) == {"decode", "queue", "prepare", "infer", "finish", "encode"}
        assert 0 < timings["decode"] < 10_000, (line, timings)
        line.pop("previous", None)
        form.model_validate(line)
    summary = last["summary"]
    assert (summary["frames"], summary["errors"], summary["complete"]) == (count, 0, True)
    assert summary["model_signature"] == frames[0]["model_signature"]
    assert summary["models_used"] == frames[0]["models_used"]
    assert summary["video"]["codec"] == "h264"


def test_boxes_of_a_video_have_tracks(everything: TestClient, video: bytes) -> None:
    """An object that stands still keeps its id; one that appears later gets its own at its second sight."""
    *frames, _ = lines(everything.post("/v1/detect", content=video))
    by_place: dict[tuple[float, ...], set[int]] = {}
    for line in frames:
        for row in line["detections"]:
            if row["track_id"] is not None:
                by_place.setdefault(tuple(round(v / 8) for v in row["box"]), set()).add(row["track_id"])
    assert len(by_place) == 8
    assert all(len(ids) == 1 for ids in by_place.values())
    assert len({next(iter(ids)) for ids in by_place.values()}) == 8
    assert all(row["track_id"] is not None for row in frames[0]["detections"])


def test_the_tracker_takes_its_parameters(everything: TestClient, video: bytes) -> None:
    """With a threshold that nothing reaches no track begins."""
    *frames, _ = lines(everything.post("/v1/detect?track_new=1", content=video))
    assert {row["track_id"] for line in frames for row in line["detections"]} == {None}


@pytest.mark.parametrize(
    ("query", "indices"),
    [
        ("every=5", [0, 5, 10]),
        ("fps=5", [0, 5, 10]),
        ("keyframes=true", [0]),
        ("start=0.16&end=0.28", [4, 5, 6]),
    ],
)
def test_frames_are_sampled(everything: TestClient, video: bytes, query: str, indices: list[int]) -> None:
    """Only the frames that are asked for are answered, under their own numbers."""
    *frames, last = lines(everything.post(f"/v1/places?{query}", content=video))
    assert [line["frame"]["index"] for line in frames] == indices
    assert last["summary"]["frames"] == len(indices)


def test_content_decides_that_it_is_a_video(everything: TestClient, video: bytes) -> None:
    """Whatever the header says; as multipart and in pieces of unknown length too."""
    raw = everything.post("/v1/places", content=video, headers={"content-type": "image/jpeg"})
    form = everything.post("/v1/places", files={"file": ("a.jpg", video)})
    pieces = everything.post("/v1/places", content=(video[at : at + 700] for at in range(0, len(video), 700)))
    assert [len(lines(answered)) for answered in (raw, form, pieces)] == [FRAMES + 1] * 3


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("fps=2&every=3", "fps and every"),
        ("start=3&end=2", "end is 2; it has to lie after start"),
        ("every=" + "9" * 30, "every has to lie between"),
        ("every=" + "9" * 4000, "every has to lie between"),
        ("every=1" + "0" * 400, "every has to lie between"),
        ("start=1e400", "start has to lie between"),
        ("end=1" + "0" * 400, "end has to lie between"),
        ("fps=1e-9", "fps has to lie between"),
        ("timestamp=1", "session"),
    ],
)
def test_contradictions_are_refused(everything: TestClient, video: bytes, query: str, words: str) -> None:
    """Before anything is decoded."""
    response = everything.post(f"/v1/detect?{query}", content=video)
    assert problem(response) == (400, "invalid_parameter")
    assert words in response.json()["detail"]


def test_sampling_of_a_picture_is_refused(everything: TestClient) -> None:
    """A parameter that means nothing is a mistake, not a matter of course."""
    picture = (Path(__file__).parents[4] / "docs" / "astronaut.jpg").read_bytes()
    for name, value in (("fps", "2"), ("provenance", "change")):
        response = everything.post(f"/v1/detect?{name}={value}", content=picture)
        assert problem(response) == (400, "invalid_parameter")
        assert name in response.json()["detail"]


MADE_BY = ("branch", "resolved_model_mapping", "models_used", "model_signature", "degraded", "warnings")


def test_provenance_is_written_where_it_changes(all_families: Path, video: bytes) -> None:
    """On the first line and where another branch takes over; filled in, the lines are those of the default."""

    def exhausted(inputs: Any, outputs: Any) -> None:
        if inputs["images"][0, 1].max() > 0.9:  # the green patch of the second half
            raise InsufficientGpuMemory("no memory for it")
        colour_detector(inputs, outputs)

    def fake(settings: Any, catalogue: Any) -> FakeEngine:
        return FakeEngine(catalogue, {"yolo11n_640": exhausted, "yolo11n_320": colour_detector})

    route = "/v1/detect?branch=yolo11n_640&fallback=true"
    with client(all_families, fake) as gateway:
        *every, _ = lines(gateway.post(route, content=video))
        *change, last = lines(gateway.post(f"{route}&provenance=change", content=video))
        again = gateway.post(f"{route}&provenance=every", content=video)
    half = FRAMES // 2
    with_provenance = [number for number, line in enumerate(change) if set(MADE_BY) & set(line)]
    assert with_provenance == [0, half]
    latest: dict[str, Any] = {}
    for line in change:
        latest = {name: line.get(name, latest.get(name)) for name in MADE_BY}
        line.update(latest)
    for number, line in enumerate(every):
        assert line["branch"]["name"] == ("yolo11n_640" if number < half else "yolo11n_320")
    for line in (*every, *change, *(spelt_out := lines(again)[:-1])):
        line.pop("timings_ms")
    assert change == every == spelt_out
    assert len(last["summary"]["models_used"]) == 2


def test_an_unknown_rule_of_provenance_is_refused(everything: TestClient, video: bytes) -> None:
    """As any value that a parameter doesn't have."""
    assert problem(everything.post("/v1/places?provenance=never", content=video)) == (
        422,
        "validation_failed",
    )


def test_only_lines_answer_a_video(everything: TestClient, video: bytes) -> None:
    """A picture of a video's boxes is not offered; and lines are not offered for a picture."""
    assert problem(everything.post("/v1/detect", content=video, headers={"accept": "image/png"}))[0] == 406
    picture = (Path(__file__).parents[4] / "docs" / "astronaut.jpg").read_bytes()
    answered = everything.post("/v1/detect", content=picture, headers={"accept": "application/x-ndjson"})
    assert problem(answered)[0] == 406


def test_one_video_a_request(everything: TestClient, video: bytes) -> None:
    """Several are refused, and so is a mixture."""
    files = [("file", ("a", video)), ("file", ("b", video))]
    assert problem(everything.post("/v1/detect", files=files)) == (400, "invalid_parameter")
    mixed = [("file", ("a", video)), ("file", ("b", b"\xff\xd8\xff"))]
    assert problem(everything.post("/v1/detect", files=mixed)) == (400, "invalid_parameter")


def test_what_can_t_be_served_is_known_before_the_first_line(repository: Path, video: bytes) -> None:
    """A missing branch has its own status, as for a picture."""
    with client(repository) as gateway:
        assert problem(gateway.post("/v1/places", content=video)) == (503, "weights_missing")
        assert problem(gateway.post("/v1/detect?branch=nope", content=video)) == (404, "model_not_found")


def test_limits_are_those_of_videos(all_families: Path, video: bytes) -> None:
    """Bytes are counted as they come, announced or not; duration and frames before they are decoded."""
    with client(all_families, video_max_bytes=1024, max_body_bytes=1 << 20) as gateway:
        assert problem(gateway.post("/v1/detect", content=video)) == (413, "payload_too_large")
        pieces = (video[at : at + 1000] for at in range(0, len(video), 1000))
        assert problem(gateway.post("/v1/detect", content=pieces)) == (413, "payload_too_large")
    with client(all_families, video_max_duration_s=0.2) as gateway:
        assert problem(gateway.post("/v1/detect", content=video)) == (413, "video_too_long")
    with client(all_families, max_pixels=1000) as gateway:
        assert problem(gateway.post("/v1/detect", content=video)) == (413, "image_too_large")
    with client(all_families, video_max_frames=5) as gateway:
        assert problem(gateway.post("/v1/detect", content=video)) == (413, "video_too_long")
        assert len(lines(gateway.post("/v1/detect?every=3", content=video))) == 4 + 1


def test_a_video_larger_than_a_picture_may_be_is_taken(all_families: Path, video: bytes) -> None:
    """The limit of pictures in memory isn't that of videos on disk."""
    with client(all_families, max_body_bytes=4096) as gateway:
        assert len(lines(gateway.post("/v1/detect", content=video))) == FRAMES + 1


def test_an_error_of_a_frame_is_a_line(all_families: Path, video: bytes) -> None:
    """A time limit that no frame can keep makes every line an error; the answer still ends with its summary."""
    with client(all_families, request_timeout_s=1e-6, video_timeout_s=60) as gateway:
        response = gateway.post("/v1/detect", content=video)
        # The body is read under the picture's limit until its first bytes say that it is a video.
        if response.status_code == 504:
            pytest.skip("the body itself was too slow for such a limit")
        *frames, last = lines(response)
        assert {line["error"]["code"] for line in frames} == {"deadline_exceeded"}
        assert last["summary"]["errors"] == FRAMES


def test_the_whole_video_has_a_deadline(all_families: Path, tmp_path: Path) -> None:
    """X-Request-Timeout ends a video that takes longer: what was done is answered."""

    def slow(inputs: Any, outputs: Any) -> None:
        time.sleep(0.1)
        colour_detector(inputs, outputs)

    def fake(settings: Any, catalogue: Any) -> FakeEngine:
        return FakeEngine(catalogue, {"yolo11n_320": slow}, leases=1)

    long = patches(tmp_path / "long.mp4", 60).read_bytes()  # 6 seconds of work
    with client(all_families, fake, leases=1) as gateway:
        response = gateway.post("/v1/detect", content=long, headers={"x-request-timeout": "2"})
    *_, last = lines(response)
    assert last["summary"]["errors"] > 0 or not last["summary"]["complete"] or last["summary"]["frames"] < 60


def _damaged(folder: Path) -> dict[str, bytes]:
    """The kinds of broken and unusual files that people send."""
    whole = patches(folder / "whole.mp4", 60)
    stream = patches(folder / "stream.mkv", 60)
    textured = videos.write(folder / "textured.mkv", videos.textured(60))
    upright = folder / "phone.mp4"
    videos.write(upright, [videos.cornered(96, 64)] * 8, rotate=90)
    return {
        "index cut off": videos.cut(whole, 0.5).read_bytes(),
        "stream cut off": videos.cut(stream, 0.5).read_bytes(),
        "bits flipped": videos.flipped(textured, 1, 60, start=0.2).read_bytes(),
        "playlist": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "no frames": videos.no_frames(folder / "none.mp4").read_bytes(),
        "smallest": videos.write(
            folder / "1.mkv", [np.full((1, 1, 3), 90, np.uint8)] * 3, codec="mjpeg", pix_fmt="yuvj444p"
        ).read_bytes(),
        "8K": videos.write(
            folder / "8k.mp4", [videos.cornered(7680, 4320)] * 2, preset="ultrafast"
        ).read_bytes(),
        "rotated": upright.read_bytes(),
        "variable rate": videos.count(
            folder / "vfr.mkv", 6, times=[0, 0.04, 0.5, 0.54, 2.0, 2.04]
        ).read_bytes(),
        "audio": videos.audio(folder / "tone.mp4").read_bytes(),
        "wrong container": b"RIFF" + bytes(4) + b"AVI " + whole.read_bytes(),
        "empty": b"",
        "header alone": whole.read_bytes()[:40],
    }


# Kind -> the problem that it is, or how many frames are answered at least and whether the video is complete.
EXPECTED: dict[str, tuple[int, str] | tuple[int, bool]] = {
    "index cut off": (400, "invalid_video"),
    "stream cut off": (5, False),
    "bits flipped": (5, True),
    "playlist": (415, "unsupported_media_type"),
    "concat": (415, "unsupported_media_type"),
    "no frames": (400, "invalid_video"),
    "smallest": (3, True),
    "8K": (2, True),
    "rotated": (8, True),
    "variable rate": (6, True),
    "audio": (400, "invalid_video"),
    "wrong container": (400, "invalid_video"),
    "empty": (400, "invalid_video"),
    "header alone": (400, "invalid_video"),
}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """See `_damaged`."""
    return _damaged(tmp_path_factory.mktemp("damaged"))


@pytest.mark.parametrize("kind", EXPECTED)
def test_damaged_and_unusual_videos(everything: TestClient, damaged: dict[str, bytes], kind: str) -> None:
    """The right problem, or the right part of the answer; the service goes on and no process stays."""
    response = everything.post("/v1/detect", content=damaged[kind], headers={"content-type": "video/mp4"})
    expected = EXPECTED[kind]
    if isinstance(expected[1], str):
        assert problem(response) == expected
    else:
        found = lines(response)
        summary = found[-1]["summary"]
        assert summary["frames"] >= expected[0]
        if kind != "bits flipped":  # decoders conceal what they can
            assert summary["complete"] is expected[1]
        assert summary["complete"] is ("error" not in found[-2] or "frame" in found[-2])
    assert everything.get("/livez").status_code == 200
    assert _decoders(psutil.Process()) == []


def test_a_phone_s_video_is_upright(everything: TestClient, damaged: dict[str, bytes]) -> None:
    """The picture's size is that which a player shows."""
    *frames, last = lines(everything.post("/v1/detect", content=damaged["rotated"]))
    assert frames[0]["image"] == {"width": 64, "height": 96}
    assert last["summary"]["video"]["rotation"] == 90


def test_times_are_those_of_the_stream(everything: TestClient, damaged: dict[str, bytes]) -> None:
    """A variable frame rate is answered with its own times."""
    *frames, _ = lines(everything.post("/v1/detect", content=damaged["variable rate"]))
    times = [line["frame"]["time_s"] for line in frames]
    assert times == pytest.approx([0, 0.04, 0.5, 0.54, 2.0, 2.04], abs=1e-3)


def _decoders(process: psutil.Process) -> list[int]:
    """Decoders that still run below a process, after they have had the time to go."""
    limit = time.monotonic() + PATIENCE_S
    while True:
        running = [c.pid for c in process.children(recursive=True) if "video_process" in " ".join(_words(c))]
        if not running or time.monotonic() > limit:
            return running
        time.sleep(0.02)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def test_work_stops_when_the_listener_goes(all_families: Path, tmp_path: Path) -> None:
    """The first line is there while the video is decoded; once the connection is closed no decoder runs, and the next
    video is served.
    """
    long = patches(tmp_path / "long.mp4", 600).read_bytes()
    with server(all_families, tmp_path / "log", video_decoders=1) as (http, pid):
        with http.stream("POST", "/v1/clip/image", content=long) as response:
            reading = response.iter_lines()
            assert json.loads(next(reading))["frame"]["index"] == 0
            assert problem(http.post("/v1/detect", content=long)) == (429, "overloaded")
        assert _decoders(psutil.Process(pid)) == []
        free = "gateway_video_streams_in_progress 0.0"
        eventually(lambda: free in http.get("/metrics").text)
        assert len(lines(http.post("/v1/clip/image?every=100", content=long))) == 7


def test_memory_is_bounded_by_the_window(all_families: Path, tmp_path: Path) -> None:
    """Eight times the frames take no more memory: 640 x 480 frames would be 180 MB in all."""

    def frames(count: int) -> bytes:
        pictures = (videos.numbered(number % 4096, 640, 480) for number in range(count))
        return videos.write(tmp_path / f"{count}.mp4", pictures, preset="ultrafast").read_bytes()

    with server(all_families, tmp_path / "log") as (http, pid):
        process = psutil.Process(pid)
        lines(http.post("/v1/places", content=frames(25)))
        before = process.memory_info().rss
        assert len(lines(http.post("/v1/places", content=frames(200)))) == 201
        assert process.memory_info().rss - before < 100 << 20
