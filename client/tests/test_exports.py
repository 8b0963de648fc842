"""Boxes in other tools' forms, opened by these tools."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from services import Service, scene

from triton_vision_gateway_client import Client, Detections, to_coco


@pytest.fixture(scope="module")
def found(service: Service) -> Detections:
    """A bicycle and a car."""
    with Client(service.url) as client:
        return client.detect(scene((1, 64, 96), (2, 224, 32)))


@pytest.fixture(scope="module")
def nothing(service: Service) -> Detections:
    """A frame without an object."""
    with Client(service.url) as client:
        return client.detect(scene())


def test_supervision(found: Detections, nothing: Detections, service: Service) -> None:
    """Boxes, scores, classes, names and tracks; none of them for an empty frame."""
    made = found.to_supervision()
    np.testing.assert_array_equal(made.xyxy, found.boxes)
    assert made.data["class_name"].tolist() == found.class_names
    assert made.tracker_id is None
    assert len(nothing.to_supervision()) == 0
    with Client(service.url) as client:
        tracked = client.detect(scene((1, 64, 96)), session="supervision")
        client.delete_session("supervision")
    assert tracked.to_supervision().tracker_id.tolist() == tracked.track_ids.tolist()


def test_pandas(found: Detections, nothing: Detections) -> None:
    """A row per box, the same columns without one."""
    table = found.to_dataframe()
    assert table[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == found.boxes.tolist()
    assert table["class_name"].tolist() == found.class_names
    assert table["track_id"].isna().all()
    assert nothing.to_dataframe().columns.tolist() == table.columns.tolist()
    assert (nothing.to_dataframe().dtypes == table.dtypes).all()


def test_coco(found: Detections, nothing: Detections, service: Service, tmp_path: Path) -> None:
    """Pycocotools reads it; ids and boxes are those of the service's own dataset."""
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(to_coco([("a.png", found), ("b.png", nothing)])), encoding="utf-8")
    dataset = COCO(str(path))
    assert sorted(dataset.imgs) == [1, 2]
    with Client(service.url) as client:
        theirs = client.detect_coco([scene((1, 64, 96), (2, 224, 32))])
    ours = found.to_coco("image-1.png")
    assert ours["images"] == theirs["images"]
    assert ours["categories"] == theirs["categories"]
    for mine, other in zip(ours["annotations"], theirs["annotations"], strict=True):
        assert mine["category_id"] == other["category_id"]
        assert mine["bbox"] == pytest.approx(other["bbox"], abs=1e-3)
        assert mine["score"] == pytest.approx(other["score"], abs=1e-6)


def test_coco_of_own_classes(found: Detections) -> None:
    """Classes that aren't COCO's are numbered from 1."""
    import dataclasses  # noqa: PLC0415

    own = tuple(dataclasses.replace(one, class_name="helmet", track_id=4) for one in found.detections[:1])
    dataset = dataclasses.replace(found, detections=own).to_coco()
    assert dataset["categories"] == [{"id": own[0].class_id + 1, "name": "helmet"}]
    assert dataset["annotations"][0]["category_id"] == own[0].class_id + 1
    assert dataset["annotations"][0]["track_id"] == 4


@pytest.mark.parametrize("module", ["supervision", "pandas"])
def test_a_missing_extra_is_named(found: Detections, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    convert = {"supervision": found.to_supervision, "pandas": found.to_dataframe}[module]
    with pytest.raises(ImportError, match=rf"triton-vision-gateway-client\[{module}\]"):
        convert()
