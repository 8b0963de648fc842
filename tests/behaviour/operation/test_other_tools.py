"""Every output is opened by the tool that it is for: pandas, Polars, DuckDB, pycocotools, supervision."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import supervision as sv
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from starlette.testclient import TestClient
from support.analysis import EVERYTHING, arrays, patches
from support.servers.gateway import client, png, scene

from app.cli import main

TABLES = {
    "core_object_detections/detections": {
        "box_index": "int32", "x1": "float", "y1": "float", "x2": "float", "y2": "float", "score": "float",
        "class_id": "int32", "class_name": "string", "track_id": "int32",
    },
    "core_depth_midas/depth": dict.fromkeys(
        (
            "depth_mean", "depth_std", "depth_p05", "depth_p95", "depth_range_robust", "depth_complexity_score",
        ),
        "float",
    ),
    "core_optical_flow/flow": dict.fromkeys(
        (
            "dt_seconds", "motion_norm_per_sec_mean", "flow_mag_std_per_sec_norm", "flow_mag_p95_per_sec_norm",
            "flow_dx_mean_per_sec_norm", "flow_dy_mean_per_sec_norm", "flow_dir_sin_mean", "flow_dir_cos_mean",
            "flow_dir_dispersion",
        ),
        "float",
    ),
    "core_clip/embeddings": {
        "frame_embeddings": "fixed_size_list<element: float>[512]", "consecutive_cosine_prev": "float",
        "words_scores": "fixed_size_list<element: float>[3]",
    },
    "places365/places": {
        "rank": "int32", "category_id": "int32", "category_name": "string", "probability": "float",
    },
}  # fmt: skip
FRAMES = 12


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return patches(tmp_path_factory.mktemp("videos") / "v.mp4", FRAMES)


@pytest.fixture(scope="module")
def done(all_families: Path, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one analysis with every component and every format."""
    folder = tmp_path_factory.mktemp("out")
    (folder / "p.yaml").write_text(EVERYTHING)
    arguments = [
        "--video-path", video, "--output", folder, "--profile-path", folder / "p.yaml", "--repository", all_families,
        "--format", "parquet,coco,sheet",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setenv("GATEWAY_VARIANT", "n")
        patch.setenv("GATEWAY_MANIFEST", "")
        assert main(["analyze", *map(str, arguments)]) == 0
    return folder / "v.mp4"


@pytest.mark.parametrize("name", TABLES)
def test_each_tool_opens_a_table_in_one_line(done: Path, name: str) -> None:
    """The same rows in pandas, Polars and DuckDB, with the columns of version 1."""
    path = done / f"{name}.parquet"
    schema = pq.read_schema(path)
    common = {"video_id": "string", "frame_index": "int32", "time_s": "float"}
    made_by = {"model_name": "string", "model_digest": "string"}
    found = {field.name: str(field.type) for field in schema}
    assert found == {**common, **TABLES[name], **made_by}
    assert schema.metadata[b"gateway.schema_version"] == b"1"
    in_pandas, in_polars = pd.read_parquet(path), pl.read_parquet(path)
    in_duckdb = duckdb.read_parquet(str(path)).fetchall()
    assert len(in_pandas) == in_polars.height == len(in_duckdb) > 0
    assert list(in_pandas.columns) == in_polars.columns == list(found)
    assert set(in_pandas["video_id"]) == {"v.mp4"}
    assert in_pandas["model_digest"].str.startswith("sha256:").all()


def test_the_tables_hold_what_the_artefacts_hold(done: Path) -> None:
    """Boxes, tracks, embeddings, ranks; NaN of the first frame is null."""
    boxes = arrays(done / "core_object_detections" / "detections.npz")
    table = pd.read_parquet(done / "core_object_detections" / "detections.parquet")
    valid = boxes["valid_mask"]
    assert np.array_equal(table[["x1", "y1", "x2", "y2"]].to_numpy(), boxes["boxes"][valid])
    assert np.array_equal(table["frame_index"], np.repeat(boxes["frame_indices"], valid.sum(axis=1)))
    assert np.array_equal(table["track_id"].fillna(-1), boxes["track_ids"][valid])
    assert set(table["class_name"]) == {"person", "bicycle"}
    clip = pl.read_parquet(done / "core_clip" / "embeddings.parquet")
    expected = arrays(done / "core_clip" / "embeddings.npz")
    assert np.array_equal(clip["frame_embeddings"].to_numpy(), expected["frame_embeddings"])
    assert clip["consecutive_cosine_prev"].null_count() == 1
    told = pq.read_schema(done / "core_clip" / "embeddings.parquet").metadata
    assert json.loads(told[b"gateway.words_prompts"]) == ["a cat", "a dog", "a cat"]
    places = pl.read_parquet(done / "places365" / "places.parquet")
    assert places.height == FRAMES * 3
    assert places["rank"].to_list() == [1, 2, 3] * FRAMES
    joined = duckdb.sql(
        f"SELECT count(DISTINCT b.frame_index) FROM '{done}/core_object_detections/detections.parquet' b "  # noqa: S608
        f"JOIN '{done}/core_optical_flow/flow.parquet' f USING (video_id, frame_index)"
    ).fetchall()
    assert joined == [(FRAMES,)]


def judged(document: Path) -> COCO:
    """Load a file as truth and as results, and compare them: every box must be found."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(document))
        evaluation = COCOeval(truth, truth.loadRes(truth.dataset["annotations"]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
    return truth


def test_pycocotools_loads_and_judges_a_video(done: Path) -> None:
    """An image per sampled frame, also where there is no box."""
    truth = judged(done / "core_object_detections" / "detections.coco.json")
    assert len(truth.imgs) == FRAMES
    boxes = arrays(done / "core_object_detections" / "detections.npz")
    assert len(truth.anns) == boxes["valid_mask"].sum()
    assert truth.loadCats(truth.getCatIds())[1] == {"id": 2, "name": "bicycle"}


def test_supervision_shows_a_video(done: Path, video: Path, tmp_path: Path) -> None:
    """As docs/outputs.md does it: frames by their index, then the dataset."""
    for index, frame in enumerate(sv.get_video_frames_generator(str(video))):
        cv2.imwrite(str(tmp_path / f"{index:06d}.jpg"), frame)
    dataset = sv.DetectionDataset.from_coco(
        str(tmp_path), str(done / "core_object_detections" / "detections.coco.json")
    )
    assert len(dataset) == FRAMES
    _, picture, found = dataset[FRAMES - 1]
    assert picture.shape == (256, 320, 3)
    assert set(found.data["class_name"]) == {"bicycle", "person"}
    sv.BoxAnnotator().annotate(picture.copy(), found)


@pytest.fixture(scope="module")
def gateway(repository: Path) -> Iterator[TestClient]:
    with client(repository) as test_client:
        yield test_client


def asked(gateway: TestClient, accept: str) -> Any:
    pictures = [
        png(scene(320, 320, (1, 64, 96, 32), (2, 224, 32, 32))),
        png(scene(320, 320, (0, 64, 96, 32))),
    ]
    files = [("file", (f"{number}.png", body)) for number, body in enumerate(pictures)]
    answer = gateway.post("/v1/detect", files=files, headers={"Accept": accept})
    assert answer.status_code == 200
    return answer, pictures


def test_an_answer_is_a_dataset(gateway: TestClient, tmp_path: Path) -> None:
    """Each picture that was sent is in it, by its name."""
    answer, pictures = asked(gateway, "application/vnd.coco+json")
    (tmp_path / "boxes.json").write_bytes(answer.content)
    for number, picture in enumerate(pictures):
        (tmp_path / f"{number}.png").write_bytes(picture)
    judged(tmp_path / "boxes.json")
    dataset = sv.DetectionDataset.from_coco(str(tmp_path), str(tmp_path / "boxes.json"))
    assert [len(found) for _, _, found in dataset] == [2, 1]


def test_an_answer_is_a_spreadsheet(gateway: TestClient, tmp_path: Path) -> None:
    """pandas, Polars and DuckDB see the same rows and numbers."""
    text = asked(gateway, "text/csv")[0].content
    table, in_polars = pd.read_csv(io.BytesIO(text)), pl.read_csv(text)
    assert list(table["class_name"]) == in_polars["class_name"].to_list()
    assert table["x1"].dtype == np.float64
    (tmp_path / "boxes.csv").write_bytes(text)
    assert len(table) == len(duckdb.read_csv(str(tmp_path / "boxes.csv")).fetchall()) == 3
