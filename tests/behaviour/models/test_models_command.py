"""`gateway models`: a model of one's own from a file of weights to answers, and away again."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.models.own import detector, three_classes
from support.servers.gateway import client

from app.cli import main
from export.yolo11 import checkpoint
from routing import overlay

ROOT = Path(__file__).resolve().parents[3]
TRAINED = Path(os.environ.get("GATEWAY_REFERENCE_DATA", ROOT.parent / "shared" / "data")) / "yolo11n.pt"
PICTURE = ROOT / "docs" / "astronaut.jpg"
VIDEO = ROOT / "docs" / "astronaut.mp4"


class Place:
    """A repository and a catalogue to work in."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str] | None = None) -> None:
        self.repository, self.catalogue, self._capsys = folder / "models", folder / "catalogue", capsys
        self.repository.mkdir(exist_ok=True)

    def run(self, *words: str | Path) -> int:
        where = ("--repository", str(self.repository), "--catalogue", str(self.catalogue))
        return main(["models", *map(str, words), *where])

    def said(self, *words: str | Path) -> tuple[int, str]:
        """The exit code, and all that was printed."""
        assert self._capsys is not None
        self._capsys.readouterr()
        code = self.run(*words)
        captured = self._capsys.readouterr()
        return code, captured.out + captured.err

    def files(self) -> list[str]:
        """Return the files that a run could leave behind."""
        folder = self.repository.parent
        found = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
        return sorted(str(path.relative_to(folder)) for path in found if path.name != "manifest.json")


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    """An empty one."""
    return Place(tmp_path, capsys)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of three classes: the trained one's where that is there, a random one's elsewhere."""
    path = tmp_path_factory.mktemp("three") / "best.pt"
    return three_classes(path, checkpoint.read(TRAINED) if TRAINED.is_file() else None)


@pytest.fixture(scope="module")
def added(three: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With the three classes as `helmet`; change nothing in it."""
    found = Place(tmp_path_factory.mktemp("added"))
    assert found.run("add", three, "--family", "detect", "--name", "helmet", "--sizes", "320") == 0
    return found


@pytest.fixture(scope="module")
def gateway(added: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Embedded, with helmet and video jobs."""
    settings: dict[str, Any] = {
        "require_ready": "helmet_320",
        "videos_folder": tmp_path_factory.mktemp("videos"),
    }
    with client(added.repository, catalogue=added.catalogue, **settings) as test_client:
        yield test_client


def test_it_answers_everywhere(gateway: TestClient, added: Place) -> None:
    """Boxes with its names, tracks, a picture, metrics, and the digest of its files in the provenance."""
    note = json.loads((added.repository / "helmet_320/1/weights.json").read_text())
    found = gateway.post("/v1/detect?variant=helmet&conf=0.01", content=PICTURE.read_bytes()).json()
    (used,) = found["models_used"]
    assert (used["model_name"], used["weights"]) == ("helmet_320", "checkpoint")
    assert used["weights_digest"] == note["digest"]
    assert {box["class_name"] for box in found["detections"]} <= {"person", "bicycle", "car"}
    assert note["labels"] == ["person", "bicycle", "car"]
    tracked = gateway.post(
        "/v1/detect?variant=helmet&session=a&timestamp=1", content=PICTURE.read_bytes()
    ).json()
    assert tracked["session"]["frame"] == 1
    headers = {"Accept": "image/png"}
    drawn = gateway.post("/v1/detect?variant=helmet", content=PICTURE.read_bytes(), headers=headers)
    assert drawn.content[:8] == b"\x89PNG\r\n\x1a\n"
    assert 'branch="helmet_320"' in gateway.get("/metrics").text


def test_a_video_job_names_it(gateway: TestClient) -> None:
    """Its class names stand in the artefact, its digest in the manifest."""
    profile = (
        "sampling: {every: 60}\ncomponents: {core_object_detections: {variant: helmet, classes: [person]}}\n"
    )
    files = {"file": ("v.mp4", VIDEO.read_bytes())}
    job = gateway.post("/v1/videos", files=files, data={"profile": profile}).json()
    limit = time.monotonic() + 120
    while (view := gateway.get(f"/v1/videos/{job['id']}").json())["state"] not in ("done", "failed"):
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert view["state"] == "done", view
    (artifact,) = view["manifest"]["artifacts"]
    content = gateway.get(f"/v1/videos/{job['id']}/artifacts/{artifact['name']}").content

    arrays = np.load(io.BytesIO(content), allow_pickle=False)
    assert arrays["class_names"].tolist() == ["0:person", "1:bicycle", "2:car"]
    assert "helmet_320" in str(arrays["meta_json"])


@pytest.mark.skipif(not TRAINED.is_file(), reason="no trained checkpoint")
def test_its_boxes_are_those_of_the_network_it_was_cut_from(
    gateway: TestClient, place: Place, three: Path
) -> None:
    """Each box that the 80 classes find in these three, the three classes find too."""
    del three
    assert place.run("add", TRAINED, "--family", "detect", "--name", "coco", "--sizes", "320") == 0
    with client(place.repository, catalogue=place.catalogue, require_ready="coco_320") as whole:
        query = "?variant=coco&classes=0,1,2&conf=0.3"
        expected = whole.post(f"/v1/detect{query}", content=PICTURE.read_bytes()).json()["detections"]
    found = gateway.post("/v1/detect?variant=helmet&conf=0.3", content=PICTURE.read_bytes()).json()[
        "detections"
    ]
    assert expected
    assert [(box["class_name"], box["track_id"]) for box in expected] == [("person", None)] * len(expected)
    for one, other in zip(expected, found, strict=True):
        assert (one["class_name"], one["class_id"]) == (other["class_name"], other["class_id"])
        assert np.allclose(one["box"], other["box"], atol=0.01)
        assert abs(one["score"] - other["score"]) < 1e-4


def test_the_command_line_tells_what_to_try_and_what_is_there(place: Place, three: Path) -> None:
    """Add prints the curl line; list, show and verify know it; remove leaves nothing."""
    code, text = place.said("add", three, "--family", "detect", "--name", "ppe", "--sizes", "64,96")
    assert (code, "/v1/detect?variant=ppe'" in text) == (0, True), text
    family = overlay.load(place.catalogue)["detect"]
    assert [branch.size for branch in family.of_variant("ppe")] == [64, 96]
    assert (
        "detect      ppe              own   64,96              3  checkpoint (best.pt)"
        in place.said("list")[1]
    )
    shown = json.loads(place.said("show", "ppe", "--json")[1])
    assert [row["state"] for row in shown] == ["as noted"] * 2
    assert shown[0]["outputs"] == ["output0 FP32 [1, 7, 84]"]
    assert place.said("verify")[0] == 0
    graph = place.repository / "ppe_64/1/model.onnx"
    content = graph.read_bytes()
    graph.unlink()
    graph.write_bytes(content + b"\x00")
    code, text = place.said("verify", "ppe")
    assert (code, "ppe_64: its files aren't those" in text) == (1, True), text
    assert "did you mean 'ppe'?" in place.said("show", "pqe")[1]
    code, text = place.said("remove", "ppe")
    assert (code, "ppe_64" in text) == (0, True)
    assert [name for name in place.files() if "ppe" in name] == []
    assert "isn't one of your models" in place.said("remove", "ppe")[1]


def test_an_onnx_file_of_any_size_is_made_fixed(place: Place, tmp_path: Path) -> None:
    """Names come from the file or from the caller."""
    file = detector(tmp_path / "any.onnx")
    code, text = place.said("add", file, "--family", "detect", "--name", "any", "--sizes", "320")
    assert (code, "contains no names of its 2 classes: give --labels" in text) == (1, True), text
    (tmp_path / "names.txt").write_text("helmet\nhead\n")
    words = ("add", file, "--family", "detect", "--name", "any", "--sizes", "320")
    assert place.said(*words, "--labels", tmp_path / "names.txt")[0] == 0
    with client(place.repository, catalogue=place.catalogue, require_ready="any_320") as http:
        found = http.post("/v1/detect?variant=any&conf=0.01", content=PICTURE.read_bytes()).json()
    assert {box["class_name"] for box in found["detections"]} <= {"helmet", "head"}
    assert found["models_used"][0]["weights"] == "checkpoint"


def _labels(place: Place, folder: Path) -> tuple[str | Path, ...]:
    del place
    (folder / "two.txt").write_text("a\nb\n")
    return ("--labels", folder / "two.txt")


def _taken(place: Place, folder: Path) -> tuple[str | Path, ...]:
    del folder
    (place.repository / "ppe_64" / "1").mkdir(parents=True)
    return ()


def _by_hand(place: Place, folder: Path) -> tuple[str | Path, ...]:
    del folder
    place.catalogue.mkdir()
    (place.catalogue / "ppe.toml").write_text("# mine\n")
    return ()


REFUSED: dict[str, tuple[Callable[[Place, Path], tuple[str | Path, ...]], str, str]] = {
    "labels": (_labels, "ppe", "--labels names 2 classes"),
    "size": (lambda *_: ("--sizes", "64,70"), "ppe", "70 is no multiple of 32"),
    "four sizes": (lambda *_: ("--sizes", "64,96,128,160"), "ppe", "at most 3 sizes"),
    "a name of ours": (lambda *_: (), "n", "replace = true"),
    "a name that is none": (lambda *_: (), "a b", "letters, digits"),
    "a folder of somebody's": (_taken, "ppe", "exists already, and no catalogue names it"),
    "a file of somebody's": (_by_hand, "ppe", "was written by hand"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_added_leaves_nothing(place: Place, tmp_path: Path, three: Path, name: str) -> None:
    """One line, exit code 1, and every file as before."""
    make, variant, words = REFUSED[name]
    more = make(place, tmp_path)
    before = place.files()
    sizes = () if "--sizes" in more else ("--sizes", "64")
    code, text = place.said("add", three, "--family", "detect", "--name", variant, *sizes, *more)
    assert (code, text.count("\n"), words in text) == (1, 1, True), text
    assert place.files() == before


def test_a_file_that_is_no_network_is_refused(place: Place, tmp_path: Path) -> None:
    """With its name."""
    (tmp_path / "notes.pt").write_text("no weights")
    code, text = place.said("add", tmp_path / "notes.pt", "--family", "detect", "--name", "a")
    assert (code, "notes.pt" in text) == (1, True)
    code, text = place.said("add", tmp_path / "gone.pt", "--family", "detect", "--name", "a")
    assert (code, "gone.pt: there is no such file" in text) == (1, True)


def test_weights_are_replaced(place: Place, three: Path, tmp_path: Path) -> None:
    """The same name with other weights and sizes; what is no longer among them goes."""
    assert place.run("add", three, "--family", "detect", "--name", "ppe", "--sizes", "64,96") == 0
    again = tmp_path / "again.pt"
    shutil.copy(three, again)
    words = ("add", again, "--family", "detect", "--name", "ppe", "--sizes", "96")
    code, text = place.said(*words)
    assert (code, "--replace" in text) == (1, True)
    assert place.said(*words, "--replace")[0] == 0
    assert not (place.repository / "ppe_64").exists()
    assert "again.pt" in place.said("list")[1]
    assert place.said("verify", "ppe")[0] == 0
