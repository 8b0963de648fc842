"""Tracking sessions over HTTP: ids stay with their objects, and what doesn't fit a session is said."""

from __future__ import annotations

import base64
import io
import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from support.models.engines import Arrays, colour_detector
from support.models.repository import CATALOGUE
from support.servers.gateway import GREY, client, png, scene

from app.api.openapi.families.detect import DetectAnswer, DetectBatch
from app.api.openapi.schemas import Problem, Session
from app.engine.fake import FakeEngine
from app.vision.bytetrack import ByteTracker
from routing.policy import Readiness

_names = (f"cam{number}" for number in itertools.count())


@pytest.fixture
def session() -> str:
    """A session that no test has used."""
    return next(_names)


def frame(step: int) -> bytes:
    """A red patch that moves right and a blue one that moves down, 8 px a step; the detector's cells are 32 px."""
    return png(scene(640, 640, (0, 64 + 8 * step, 96, 48), (2, 320, 32 + 8 * step, 48)))


def post(gateway: Any, session: str, query: str = "", body: bytes | None = None, **more: Any) -> Any:
    return gateway.post(f"/v1/detect?session={session}{query}", content=body or frame(0), **more)


def ok(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def refused(response: Any, status: int, code: str) -> str:
    """The detail of the problem that the response must be."""
    document = response.json()
    assert (response.status_code, document.get("code")) == (status, code), response.text
    Problem.model_validate(document)
    return str(document["detail"])


def ids(document: dict[str, Any]) -> dict[str, set[int | None]]:
    """Track ids of a frame by class."""
    found: dict[str, set[int | None]] = {}
    for row in document["detections"]:
        found.setdefault(row["class_name"], set()).add(row["track_id"])
    return found


def metric(gateway: TestClient, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(gateway.get("/metrics").text)
    samples = (sample for family in families for sample in family.samples)
    return next((s.value for s in samples if s.name == name and s.labels == labels), 0.0)


def blobs(inputs: Arrays, outputs: Arrays) -> None:
    """A detector that sees one box around all that is purely red, green or blue."""
    images, rows = inputs["images"][0], outputs["output0"][0]
    rows.fill(0)
    for colour in range(3):
        y, x = np.nonzero((images[colour] > 0.9) & (images.sum(axis=0) < 1.1))
        if len(x):
            rows[:4, colour] = np.mean([x.min(), x.max() + 1]), np.mean([y.min(), y.max() + 1]), *_sides(x, y)
            rows[4 + colour, colour] = 0.9


def _sides(*axes: Any) -> list[float]:
    return [axis.max() + 1 - axis.min() for axis in axes]


def test_ids_stay_with_their_patch(repository: Path, session: str) -> None:
    """Three patches cross the frame, and each other; each keeps the id that it had at first."""
    seen: dict[str, set[int | None]] = {}
    with client(repository, lambda *_: FakeEngine(CATALOGUE, {"yolo11n_320": blobs})) as gateway:
        for step in range(40):
            patches = ((0, 6 * step, 130, 48), (1, 240 - 6 * step, 150, 40), (2, 100, 5 * step, 32))
            document = ok(post(gateway, session, f"&timestamp={step / 10}", png(scene(320, 320, *patches))))
            DetectAnswer.model_validate(document)
            assert document["session"] == {"id": session, "frame": step + 1, "timestamp": step / 10}
            for name, tracks in ids(document).items():
                seen.setdefault(name, set()).update(tracks)
    assert sorted(seen) == ["bicycle", "car", "person"]
    assert sorted(seen.values(), key=str) == [{1}, {2}, {3}]


def test_no_id_comes_twice_in_a_frame(gateway: TestClient, session: str) -> None:
    """Boxes that come and go, cell by cell: every id once a frame, and always of one colour."""
    owner: dict[int, str] = {}
    for step in range(20):
        document = ok(post(gateway, session, f"&timestamp={step / 10}", frame(step)))
        rows = [row["track_id"] for row in document["detections"] if row["track_id"] is not None]
        assert len(rows) == len(set(rows))
        for name, tracks in ids(document).items():
            for track in tracks - {None}:
                assert owner.setdefault(int(track or 0), name) == name
    assert len(owner) > 4


def test_a_new_object_has_its_id_from_the_second_frame(gateway: TestClient, session: str) -> None:
    """One that was there in the first frame has it at once; the gap of a frame without it is bridged."""
    alone, both = scene(320, 320, (1, 64, 96, 32)), scene(320, 320, (1, 64, 96, 32), (2, 224, 32, 32))
    seen = [
        ids(ok(post(gateway, session, f"&timestamp={at}", png(rgb))))
        for at, rgb in enumerate((alone, both, both, alone, both))
    ]
    assert seen == [
        {"bicycle": {1}},
        {"bicycle": {1}, "car": {None}},
        {"bicycle": {1}, "car": {2}},
        {"bicycle": {1}},
        {"bicycle": {1}, "car": {2}},
    ]


def _faint(strength: float) -> bytes:
    """One red patch whose score is `strength`."""
    rgb = np.full((320, 320, 3), GREY, np.uint8)
    rgb[96:128, 64:96] = 255, *[round(255 * (1 - strength))] * 2
    return png(rgb)


def test_faint_boxes_continue_a_track_unseen(gateway: TestClient, session: str) -> None:
    """Under `conf` but over `track_low`: not in the answer, but the id is the same when the object comes back."""
    found = [
        ok(post(gateway, session, f"&track_buffer=0&timestamp={at}", _faint(strength)))["detections"]
        for at, strength in enumerate((0.9, 0.2, 0.2, 0.2, 0.2, 0.9))
    ]
    assert [[row["track_id"] for row in rows] for rows in found] == [[1], [], [], [], [], [1]]


@pytest.mark.parametrize("query", ["", "&conf=0.05", "&conf=0.5&max_det=3", "&classes=car&iou=0.3"])
def test_a_session_changes_no_box(gateway: TestClient, session: str, query: str) -> None:
    """The detector runs down to track_low, yet the caller sees what it sees without a session."""
    plain = ok(gateway.post(f"/v1/detect?{query[1:]}", content=frame(3)))["detections"]
    tracked = ok(post(gateway, session, query, frame(3)))["detections"]
    assert plain
    assert [{**row, "track_id": None} for row in tracked] == plain


CHANGES = {
    "conf": ("", "&conf=0.5", "conf changed from 0.25 to 0.5"),
    "iou": ("&iou=0.6", "&iou=0.5", "iou changed from 0.6 to 0.5"),
    "max_det": ("", "&max_det=9", "max_det changed from 300 to 9"),
    "classes": ("&classes=car,person", "&classes=car", "classes changed from [0, 2] to [2]"),
    "agnostic": ("", "&agnostic=true", "agnostic changed from False to True"),
    "branch": ("", "&branch=640", "branch changed from None to 640"),
    "fallback": ("", "&fallback=true", "fallback changed from False to True"),
    "analysis": ("", "&analysis_width=600", "analysis_width changed from None to 600"),
    "high": ("", "&track_high=0.55", "track_high changed from 0.5 to 0.55"),
    "low": ("", "&track_low=0.2", "track_low changed from 0.1 to 0.2"),
    "new": ("", "&track_new=0.7", "track_new changed from 0.6 to 0.7"),
    "match": ("", "&track_match=0.7", "track_match changed from 0.8 to 0.7"),
    "buffer": ("", "&track_buffer=2", "track_buffer changed from 1.0 to 2.0"),
    "class_aware": ("", "&track_class_aware=true", "track_class_aware changed from False to True"),
    "two": ("", "&conf=0.5&max_det=9", "conf changed from 0.25 to 0.5; max_det changed from 300 to 9"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_parameter_is_a_conflict(gateway: TestClient, session: str, name: str) -> None:
    """The conflict names the parameter and both values; the session keeps its own, given or by default."""
    before, after, words = CHANGES[name]
    ok(post(gateway, session, f"{before}&timestamp=1"))
    assert words in refused(post(gateway, session, f"{after}&timestamp=2"), 409, "session_conflict")
    document = ok(post(gateway, session, f"{before}&timestamp=2"))
    assert document["session"]["frame"] == 2


def test_another_variant_is_a_conflict(repository: Path, session: str) -> None:
    """Its boxes are another model's."""
    engine = FakeEngine(CATALOGUE, dict.fromkeys(("yolo11n_640", "yolo11s_640"), colour_detector))
    with client(repository, lambda *_: engine) as gateway:
        ok(post(gateway, session))
        detail = refused(post(gateway, session, "&variant=s"), 409, "session_conflict")
    assert "variant changed from n to s" in detail


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "&variant=n&conf=0.25&track_high=0.5"),
        ("&classes=car,person", "&classes=0,car,2"),
        ("&branch=medium", "&branch=medium"),
    ],
)
def test_what_means_the_same_is_no_conflict(
    gateway: TestClient, session: str, before: str, after: str
) -> None:
    """A default that is written out, or classes named otherwise."""
    ok(post(gateway, session, before))
    assert ok(post(gateway, session, after))["session"]["frame"] == 2


def test_another_size_of_the_frame_is_a_conflict(gateway: TestClient, session: str) -> None:
    """Boxes of two sizes can't be compared."""
    ok(post(gateway, session))
    detail = refused(post(gateway, session, body=png(scene(320, 640))), 409, "session_conflict")
    assert "frame_size changed from 640x640 to 320x640" in detail


@pytest.mark.parametrize("late", [2.0, 1.5, -1.0])
def test_a_frame_out_of_order_is_a_conflict(gateway: TestClient, session: str, late: float) -> None:
    """Not after the last one: its time is said, counted, and the session is as it was."""
    for at in (1, 2):
        ok(post(gateway, session, f"&timestamp={at}"))
    before = gateway.get(f"/v1/sessions/{session}").json()
    conflicts = metric(gateway, "gateway_session_conflicts_total", reason="order")
    detail = refused(post(gateway, session, f"&timestamp={late}"), 409, "session_conflict")
    assert f"timestamp {late} is not after 2.0" in detail
    assert metric(gateway, "gateway_session_conflicts_total", reason="order") == conflicts + 1
    assert gateway.get(f"/v1/sessions/{session}").json() == before


@pytest.mark.parametrize("queries", [("&timestamp=1", ""), ("", "&timestamp=1e11")])
def test_a_session_has_one_clock(gateway: TestClient, session: str, queries: tuple[str, str]) -> None:
    """The caller's timestamps or the service's clock, not now this and now that."""
    ok(post(gateway, session, queries[0]))
    assert "timestamp" in refused(post(gateway, session, queries[1]), 409, "session_conflict")


def test_without_timestamps_the_service_s_clock_serves(gateway: TestClient, session: str) -> None:
    """Seconds since 1970, ascending."""
    times = [ok(post(gateway, session))["session"]["timestamp"] for _ in range(3)]
    assert times == sorted(set(times))
    assert abs(times[-1] - time.time()) < 60
    assert gateway.get(f"/v1/sessions/{session}").json()["clock"] == "service"


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("session=", 400, "session"),
        ("session=a/b", 400, "session"),
        ("session=a%20b", 400, "session"),
        ("session=%C3%A4", 400, "session"),
        ("session=a%0A", 400, "session"),
        ("session=" + "x" * 129, 400, "session"),
        ("session=a&timestamp=soon", 400, "timestamp"),
        ("session=a&timestamp=", 400, "timestamp"),
        ("session=a&timestamp=nan", 400, "timestamp"),
        ("session=a&timestamp=inf", 400, "timestamp"),
        ("session=a&timestamp=1e13", 400, "timestamp"),
        ("session=a&timestamp=1,2", 400, "2 for 1 files"),
        ("session=a&timestamp=2,1", 400, "1.0 comes after 2.0"),
        ("session=a&timestamp=1&timestamp=1", 400, "1.0 comes after 1.0"),
        ("session=a&track_low=0.6", 400, "low"),
        ("session=a&track_match=0", 422, "track_match"),
        ("session=a&track_buffer=61", 422, "track_buffer"),
        ("session=a&track_new=2", 422, "track_new"),
        ("session=a&session=b&tracks=1", 422, "tracks"),
        ("session=a&every=2&fps=1", 400, "only for videos: fps, every; a session takes pictures"),
        ("timestamp=1", 400, "timestamp"),
        ("track_low=0.2&track_class_aware=true", 400, "track_low, track_class_aware"),
    ],
)
def test_a_wrong_parameter_of_tracking_is_named(
    gateway: TestClient, query: str, status: int, word: str
) -> None:
    """Nothing is guessed at or ignored, and no session begins."""
    answered = gateway.post(f"/v1/detect?{query}", content=frame(0))
    code = {400: "invalid_parameter", 422: "validation_failed"}[status]
    assert word in refused(answered, status, code)
    refused(gateway.get("/v1/sessions/a"), 404, "session_not_found")


@pytest.mark.parametrize("wished", ["cam-1.A_b:7", "x" * 128])
def test_a_plain_word_is_a_session(gateway: TestClient, wished: str) -> None:
    """Letters, digits and . _ : - up to 128."""
    assert ok(post(gateway, wished))["session"]["id"] == wished
    assert ok(gateway.get(f"/v1/sessions/{wished}"))["id"] == wished


def _files(*bodies: bytes) -> Any:
    return [("file", (f"{number}.png", body)) for number, body in enumerate(bodies)]


@pytest.mark.parametrize("query", ["timestamp=1,2,3,4", "timestamp=1&timestamp=2,3&timestamp=4"])
def test_a_batch_is_tracked_in_order(gateway: TestClient, session: str, query: str) -> None:
    """A frame that can't be read has its error in place and isn't there for the tracker; the ids are a single's."""
    bodies = [frame(0), b"broken", frame(1), frame(2)]
    document = ok(gateway.post(f"/v1/detect?session={session}&{query}", files=_files(*bodies)))
    DetectBatch.model_validate(document)
    assert document["errors"] == 1
    assert document["results"][1]["error"]["code"] == "unsupported_media_type"
    results = [result for result in document["results"] if "error" not in result]
    assert [result["session"]["timestamp"] for result in results] == [1, 3, 4]
    other = next(_names)
    for at, number in ((1, 0), (3, 1), (4, 2)):
        single = ok(post(gateway, other, f"&timestamp={at}", frame(number)))
        assert single["detections"] == results[number]["detections"]
    assert ok(gateway.get(f"/v1/sessions/{session}"))["frames"] == 3


def test_a_batch_needs_a_timestamp_a_file(gateway: TestClient, session: str) -> None:
    """Too few, too many or none: refused; one file may come without."""
    for query in ("", "&timestamp=1", "&timestamp=1,2,3"):
        answered = gateway.post(f"/v1/detect?session={session}{query}", files=_files(frame(0), frame(1)))
        assert "for 2 files" in refused(answered, 400, "invalid_parameter")
    assert "session" in ok(gateway.post(f"/v1/detect?session={session}", files=_files(frame(0))))


def test_a_batch_that_conflicts_changes_nothing(gateway: TestClient, session: str) -> None:
    """Its first frame is too early: none of them is tracked."""
    ok(post(gateway, session, "&timestamp=5"))
    answered = gateway.post(f"/v1/detect?session={session}&timestamp=5,6", files=_files(frame(0), frame(1)))
    refused(answered, 409, "session_conflict")
    assert ok(gateway.get(f"/v1/sessions/{session}"))["frames"] == 1


def test_a_frame_that_can_t_be_read_begins_no_session(gateway: TestClient, session: str) -> None:
    """Neither alone nor in a batch of such."""
    refused(post(gateway, session, "&timestamp=1", b"broken"), 415, "unsupported_media_type")
    broken = gateway.post(f"/v1/detect?session={session}&timestamp=1,2", files=_files(b"broken", b""))
    refused(broken, 415, "unsupported_media_type")
    refused(gateway.get(f"/v1/sessions/{session}"), 404, "session_not_found")


def test_the_picture_has_the_ids_drawn(gateway: TestClient, session: str) -> None:
    """image/png in a session differs from the one without only in the labels, and counts as a frame."""
    accept = {"accept": "image/png"}
    plain = gateway.post("/v1/detect", content=frame(0), headers=accept)
    tracked = post(gateway, session, headers=accept)
    assert tracked.headers["content-type"] == "image/png"
    first, second = (np.asarray(Image.open(io.BytesIO(answer.content))) for answer in (plain, tracked))
    assert (first != second).any()
    assert (first[200:, :300] == second[200:, :300]).all()
    assert ok(gateway.get(f"/v1/sessions/{session}"))["frames"] == 1


def test_a_session_can_be_looked_at_and_kept(gateway: TestClient, session: str) -> None:
    """Parameters, times, tracks, and a state that goes on elsewhere."""
    for step in range(3):
        answered = ok(post(gateway, session, f"&track_buffer=2&timestamp={step}", frame(step)))
    document = ok(gateway.get(f"/v1/sessions/{session}"))
    Session.model_validate(document)
    assert (document["id"], document["frames"], document["last_timestamp"]) == (session, 3, 2)
    assert document["created_at"] < document["updated_at"]
    assert (
        document["parameters"] | {"track_buffer": 2.0, "frame_size": "640x640", "conf": 0.25}
        == document["parameters"]
    )
    tracker = ByteTracker.restore(base64.b64decode(document["state"]))
    assert tracker.tracks() == document["tracks"]
    shown = {row["track_id"] for row in answered["detections"]}
    assert shown - {None} <= {track["id"] for track in document["tracks"]}


def test_a_reset_session_begins_anew(gateway: TestClient, session: str) -> None:
    """Gone once, unknown twice; then other parameters, an earlier time and ids from 1."""
    body = png(scene(320, 320, (1, 64, 96, 32)))
    for at in (5, 6):
        ok(post(gateway, session, f"&timestamp={at}", body))
    gone = gateway.delete(f"/v1/sessions/{session}")
    assert (gone.status_code, gone.content) == (204, b"")
    refused(gateway.delete(f"/v1/sessions/{session}"), 404, "session_not_found")
    refused(gateway.get(f"/v1/sessions/{session}"), 404, "session_not_found")
    document = ok(post(gateway, session, "&conf=0.5&timestamp=1", body))
    assert (ids(document), document["session"]["frame"]) == ({"bicycle": {1}}, 1)


@pytest.mark.parametrize("method", ["get", "delete"])
def test_what_is_no_session_id_is_refused(gateway: TestClient, method: str) -> None:
    """Also where it is looked at or ended."""
    refused(getattr(gateway, method)("/v1/sessions/a%20b"), 400, "invalid_parameter")


def test_a_branch_that_routing_chose_may_change(repository: Path, session: str) -> None:
    """The large branch is lost in mid-session: the next smaller one serves, the answer says so, the ids go on."""
    engine = FakeEngine(CATALOGUE, dict.fromkeys(("yolo11n_640", "yolo11n_960"), blobs))
    body = png(scene(960, 960, (0, 96, 96, 64), (2, 480, 480, 64)))
    with client(repository, lambda *_: engine) as gateway:
        before = ok(post(gateway, session, "&timestamp=1", body))
        lost = replace(engine.ready()["yolo11n_960"], readiness=Readiness.UNAVAILABLE)
        engine._states = {**engine._states, lost.name: lost}
        after = ok(post(gateway, session, "&timestamp=2", body))
    assert [before["branch"]["name"], after["branch"]["name"]] == ["yolo11n_960", "yolo11n_640"]
    assert after["session"]["frame"] == 2
    assert ids(after) == ids(before)
