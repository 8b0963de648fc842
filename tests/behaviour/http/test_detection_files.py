"""Detections as COCO JSON and as CSV, by the caller's Accept: what other tools read is what JSON says."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.paths import ROOT
from support.servers.gateway import client, png, scene

from app.api.response.detection_files import COCO, CSV, plain_text
from app.vision.coco import Categories

FIRST = png(scene(320, 320, (1, 64, 96, 32), (2, 224, 32, 32)))
SECOND = png(scene(320, 320, (0, 64, 96, 32)))


@pytest.fixture(scope="module")
def gateway(repository: Path) -> Any:
    """Detection, in this process."""
    with client(repository) as test_client:
        yield test_client


def ask(gateway: TestClient, accept: str, query: str = "", **body: Any) -> Any:
    answer = gateway.post(f"/v1/detect{query}", headers={"Accept": accept}, **(body or {"content": FIRST}))
    assert answer.status_code == 200, answer.text
    return answer


def pair(*bodies: bytes) -> dict[str, Any]:
    return {"files": [("file", (f"a/{number}.png", body)) for number, body in enumerate(bodies, 1)]}


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_coco_has_the_boxes_of_json(gateway: TestClient) -> None:
    """As x, y, width, height; ids begin at 1, and categories have the numbers of the dataset."""
    expected, answer = ask(gateway, "application/json").json(), ask(gateway, COCO)
    document = answer.json()
    assert answer.headers["content-type"] == COCO
    assert document["images"] == [{"id": 1, "file_name": "image-1.png", "width": 320, "height": 320}]
    names = {category["id"]: category["name"] for category in document["categories"]}
    found = [
        (
            names[one["category_id"]],
            [*one["bbox"][:2], one["bbox"][0] + one["bbox"][2], one["bbox"][1] + one["bbox"][3]],
        )
        for one in document["annotations"]
    ]
    assert found == [(row["class_name"], row["box"]) for row in expected["detections"]]
    assert [one["score"] for one in document["annotations"]] == [r["score"] for r in expected["detections"]]
    assert [one["id"] for one in document["annotations"]] == [1, 2]
    assert document["info"]["model_signature"] == expected["model_signature"]


@pytest.mark.parametrize("accept", [COCO, CSV])
def test_the_headers_say_how_it_was_made(gateway: TestClient, accept: str) -> None:
    """The same as JSON does; a cache sees that Accept chooses the form."""
    expected, answer = ask(gateway, "application/json"), ask(gateway, accept)
    made_by = json.loads(answer.headers["x-provenance"])
    assert made_by == {name: expected.json()[name] for name in made_by}
    assert {"branch", "models_used", "model_signature"} <= made_by.keys()
    assert answer.headers["vary"] == expected.headers["vary"] == "Accept"
    assert "decode;dur=" in answer.headers["server-timing"]


def test_csv_has_a_row_per_box(gateway: TestClient) -> None:
    """RFC 4180: lines end in CR LF, and the header says that there is a header."""
    expected, answer = ask(gateway, "application/json").json(), ask(gateway, CSV)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.text.count("\n") == answer.text.count("\r\n") == 3
    for row, box in zip(rows(answer.text), expected["detections"], strict=True):
        assert [float(row[name]) for name in ("x1", "y1", "x2", "y2")] == box["box"]
        assert float(row["score"]) == pytest.approx(box["score"], rel=1e-6)
        assert (row["class_name"], int(row["class_id"])) == (box["class_name"], box["class_id"])
        assert (row["image_id"], row["track_id"], row["error"]) == ("1", "", "")


def test_a_batch_is_one_file(gateway: TestClient) -> None:
    """Images have the place and the name of their part; a part that can't be used is told, and has no boxes."""
    body = pair(FIRST, b"GIF89a no picture", SECOND)
    document = ask(gateway, COCO, **body).json()
    assert [(image["id"], image["file_name"]) for image in document["images"]] == [(1, "1.png"), (3, "3.png")]
    assert [one["image_id"] for one in document["annotations"]] == [1, 1, 3]
    assert [one["id"] for one in document["annotations"]] == [1, 2, 3]
    (error,) = document["errors"]
    assert (error["image_id"], error["code"]) == (2, "unsupported_media_type")
    answer = ask(gateway, CSV, **body)
    assert [(r["image_id"], r["file_name"], r["error"]) for r in rows(answer.text)] == [
        ("1", "1.png", ""), ("1", "1.png", ""), ("2", "2.png", "unsupported_media_type"), ("3", "3.png", ""),
    ]  # fmt: skip
    assert json.loads(answer.headers["x-provenance"])["errors"] == 1


def test_a_batch_without_a_usable_frame_is_refused(gateway: TestClient) -> None:
    """With the first frame's problem, in whatever form."""
    answer = gateway.post("/v1/detect", headers={"Accept": COCO}, **pair(b"GIF89a", b"GIF89a"))
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_a_session_has_its_tracks(gateway: TestClient) -> None:
    """In both forms, one frame or a batch."""
    ask(gateway, COCO, "?session=tracks")
    document = ask(gateway, COCO, "?session=tracks").json()
    assert {one["track_id"] for one in document["annotations"]} == {1, 2}
    assert document["images"][0]["session"]["frame"] == 2
    found = rows(ask(gateway, CSV, "?session=batch&timestamp=1,2", **pair(FIRST, FIRST)).text)
    assert {(row["frame"], row["track_id"]) for row in found} == {
        ("1", "1"), ("1", "2"), ("2", "1"), ("2", "2"),
    }  # fmt: skip


@pytest.mark.parametrize("accept", [COCO, CSV])
def test_several_variants_are_json(gateway: TestClient, accept: str) -> None:
    """Their classes differ: one file would mix them."""
    answer = gateway.post("/v1/detect?variant=n,s", content=FIRST, headers={"Accept": accept})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")


def test_other_routes_have_neither(gateway: TestClient) -> None:
    """406 says what there is."""
    answer = gateway.post("/v1/detect", content=FIRST, headers={"Accept": "application/vnd.apache.parquet"})
    assert answer.status_code == 406
    assert COCO in answer.json()["detail"]


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2", "@SUM(A1)", "\t=1", "\uff1d1"])
def test_no_text_is_a_formula(text: str) -> None:
    """A quote before it makes it a text; other texts stay as they are."""
    assert plain_text(text) == f"'{text}"
    assert plain_text(f"a{text}") == f"a{text}"


def test_a_file_name_is_no_formula_and_no_path(gateway: TestClient) -> None:
    """The name that a form gives a file ends up in a cell."""
    files = [("file", ("..\\a\\=HYPERLINK(x),b.png", FIRST))]
    names = {row["file_name"] for row in rows(ask(gateway, CSV, files=files).text)}
    assert names == {"'=HYPERLINK(x),b.png"}


def test_the_categories_are_those_of_the_dataset() -> None:
    """COCO's 80 classes have its ids from 1 to 90; those of other models count from 1."""
    coco = (ROOT / "routing" / "labels" / "coco80.txt").read_text(encoding="utf-8").splitlines()
    table = {row["name"]: row["id"] for row in Categories(coco).table()}
    assert (table["person"], table["stop sign"], table["bench"], table["toothbrush"]) == (1, 13, 15, 90)
    assert len(set(table.values())) == 80
    assert Categories(["helmet", "person"]).table() == [
        {"id": 1, "name": "helmet"}, {"id": 2, "name": "person"},
    ]  # fmt: skip
