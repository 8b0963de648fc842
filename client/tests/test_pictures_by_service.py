"""Every route that takes pictures or texts, against a real gateway, with both clients."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from services import Service, scene

BOXES = {"bicycle": (64.0, 96.0, 96.0, 128.0), "car": (224.0, 32.0, 256.0, 64.0)}
FRAME = scene((1, 64, 96), (2, 224, 32))


def boxes_of(found: Any) -> dict[str, tuple[float, ...]]:
    return {one.class_name: one.box for one in found.detections}


def check_made_by(answer: Any, family: str) -> None:
    """An answer says what produced it."""
    assert answer.models_used[0].weights == "random"
    assert answer.models_used[0].device == "cpu"
    assert answer.model_signature.startswith("sha256:")
    assert answer.request_id
    assert answer.timings_ms["infer"] >= 0  # 0 from a cache
    assert answer.branch.family == family
    assert answer.reason == answer.branch.why


def test_detect_takes_every_kind_of_picture(client: Any, tmp_path: Path) -> None:
    """A path, its text, bytes, an open file, an array and a PIL image give the same boxes."""
    path = tmp_path / "picture.png"
    Image.fromarray(FRAME).save(path)
    with path.open("rb") as file:
        pictures = [path, str(path), path.read_bytes(), file, FRAME, Image.open(path)]
        answers = [client.detect(picture) for picture in pictures]
    assert [boxes_of(found) for found in answers] == [BOXES] * len(pictures)
    check_made_by(answers[0], "detect")
    assert (answers[0].image.width, answers[0].image.height) == (320, 320)


def test_parameters_reach_the_service(client: Any) -> None:
    """Lists, booleans, numbers and names."""
    found = client.detect(FRAME, classes=["car", 7], conf=0.3, agnostic=True, branch="large", fallback=True)
    assert boxes_of(found) == {"car": BOXES["car"]}
    assert found.degraded
    assert [passed.branch for passed in found.branch.passed_over] == ["yolo11n_960"]
    assert client.detect(FRAME, analysis_width=640, analysis_height=640).branch.name == "yolo11n_640"


def test_a_batch_has_an_error_in_the_place_of_a_broken_picture(client: Any) -> None:
    """The other answers stand in their order."""
    batch = client.detect_batch([FRAME, b"no picture", scene((0, 32, 32))])
    assert (len(batch), batch.errors) == (3, 1)
    assert [None if one.error is None else one.error.code for one in batch] == [
        None,
        "unsupported_media_type",
        None,
    ]
    assert boxes_of(batch[0].answer) == BOXES
    assert batch[2].answer.class_names == ["person"]
    assert batch[2].answer.request_id == batch.request_id
    with pytest.raises(type(batch[1].error)):
        batch.answers()
    assert len(client.detect_batch([FRAME])) == 1


def test_several_variants(client: Any) -> None:
    """Each has its own answer or error; one alone is a batch of one."""
    batch = client.detect_variants(FRAME, ["n", "s"])
    assert boxes_of(batch[0].answer) == BOXES
    assert batch[1].error.code in {"model_not_ready", "weights_missing"}
    assert len(client.detect_variants(FRAME, ["n"])) == 1


def test_a_session_follows_objects(client: Any, connect: Any) -> None:
    """Ids stay, the session can be looked at and ended, and its parameters are fixed."""
    name = f"camera-{type(client).__name__}"
    for number in range(3):
        found = client.detect(FRAME, session=name, timestamp=number / 25)
    assert found.session.frame == 3
    assert sorted(found.track_ids.tolist()) == [1, 2]
    batch = client.detect_batch([FRAME, FRAME], session=name, timestamps=[1.0, 1.04])
    assert [one.answer.session.frame for one in batch] == [4, 5]
    state = client.session(name)
    assert (state.frames, state.clock, len(state.tracks)) == (5, "timestamp", 2)
    client.delete_session(name)
    assert client.detect(FRAME, session=name).session.frame == 1


def test_files_for_other_tools(client: Any, tmp_path: Path) -> None:
    """The service's own COCO dataset and CSV."""
    path = tmp_path / "scene.png"
    Image.fromarray(FRAME).save(path)
    dataset = client.detect_coco([path])
    assert dataset["images"][0]["file_name"] == "scene.png"
    assert len(dataset["categories"]) == 80
    rows = list(csv.DictReader(io.StringIO(client.detect_csv([path, FRAME]))))
    assert {row["file_name"] for row in rows} == {"scene.png", "image-2.png"}


def test_depth(client: Any, small: Path) -> None:
    """The map as an array, its statistics, and a picture of it."""
    found = client.depth(small)
    assert found.values.dtype == np.float32
    assert found.values.shape == (240, 240)
    check_made_by(found, "depth")
    assert client.depth(small, size="branch").values.shape == (256, 256)
    numbers = client.depth_summary(small)
    assert numbers.depth.mean == pytest.approx(float(found.values.mean()), abs=1e-3)
    batch = client.depth_batch([small, small])
    assert [one.depth for one in batch.answers()] == [numbers.depth] * 2


def test_flow(client: Any) -> None:
    """Displacements as an array, which the test model takes from brightness; statistics."""
    dark, bright = np.full((96, 128, 3), 50, np.uint8), np.full((96, 128, 3), 100, np.uint8)
    found = client.flow(dark, bright)
    assert found.values.shape == (2, 96, 128)
    assert found.values[0].mean() > 0
    check_made_by(found, "flow")
    numbers = client.flow_summary(dark, bright)
    assert numbers.flow.dx_mean == pytest.approx(float(found.values[0].mean()), abs=1e-3)
    assert numbers.previous is None


def test_drawings(client: Any, small: Path, tmp_path: Path) -> None:
    """Boxes, depth and flow as PNG and JPEG."""
    drawn = [
        client.draw_boxes(small),
        client.draw_depth(small, "jpeg"),
        client.draw_flow(small, small, "png"),
    ]
    for number, drawing in enumerate(drawn):
        path = drawing.save(tmp_path / f"drawn-{number}")
        with Image.open(path) as image:
            assert image.size == (240, 240)
            assert drawing.media_type == f"image/{(image.format or '').lower()}"
        assert drawing.branch.name


def test_embeddings_of_pictures_and_texts(client: Any, small: Path) -> None:
    """One by one, several, and compared: the same numbers everywhere."""
    one = client.embed_image(small)
    assert one.vector.shape == (512,)
    assert one.normalized
    assert float(np.linalg.norm(one.vector)) == pytest.approx(1, abs=1e-5)
    check_made_by(one, "clip_image")
    assert not client.embed_image(small, normalize=False).normalized
    several = client.embed_images([small, small]).answers()
    np.testing.assert_allclose([each.vector for each in several], [one.vector] * 2, atol=1e-6)
    prompts = ["an astronaut", "a cat \u2028 on a \x85 mat", "word " * 100]
    texts = client.embed_text(prompts)
    assert texts.vectors.shape == (3, 512)
    assert texts.truncated == (False, False, True)
    check_made_by(texts, "clip_text")
    match = client.similarity([small, FRAME], prompts)
    assert match.prompts == tuple(prompts)
    assert match.cosine.shape == match.softmax.shape == (2, 3)
    np.testing.assert_allclose(match.cosine[0], texts.vectors @ one.vector, atol=1e-5)
    np.testing.assert_allclose(match.softmax.sum(1), 1, atol=1e-5)
    assert {branch.family for branch in match.branches} == {"clip_image", "clip_text"}


def test_embeddings_in_openai_s_form(client: Any, small: Path) -> None:
    """Texts and pictures in one list, in their order."""
    mixed = client.embeddings(["an astronaut", small, FRAME])
    assert mixed.vectors.shape == (3, 512)
    np.testing.assert_allclose(mixed.vectors[0], client.embed_text(["an astronaut"]).vectors[0], atol=1e-6)
    np.testing.assert_allclose(mixed.vectors[1], client.embed_image(small).vector, atol=1e-6)
    assert mixed.prompt_tokens > 2
    assert len(mixed.models_used) == 2


def test_places(client: Any, small: Path) -> None:
    """Categories with probabilities, most probable first."""
    found = client.places(small, k=3)
    probabilities = [place.probability for place in found.places]
    assert probabilities == sorted(probabilities, reverse=True)
    assert len(probabilities) == 3
    check_made_by(found, "places")
    assert client.places_batch([small, small], k=3)[1].answer.places == found.places


def test_curl_and_client_give_the_same_boxes(client: Any, service: Service, photo: Path) -> None:
    """The boxes of docs/astronaut.jpg are those of curl, with all decimals."""
    query = "conf=0.02"
    done = subprocess.run(
        ["curl", "-fsS", "--data-binary", f"@{photo}", f"{service.url}/v1/detect?{query}"],
        capture_output=True,
        check=True,
    )
    expected = json.loads(done.stdout)
    found = client.detect(photo, conf=0.02)
    assert expected["detections"]
    assert [list(one.box) for one in found.detections] == [row["box"] for row in expected["detections"]]
    assert found.scores.tolist() == np.float32([row["score"] for row in expected["detections"]]).tolist()
    assert found.model_signature == expected["model_signature"]
