"""`POST /v1/detect` against Ultralytics: the same checkpoint, its own letterbox and suppression (the golden data).

Runs where the trained models are: in `triton/models`, or exported into a temporary repository from the checkpoint in
`GATEWAY_REFERENCE_DATA` (default `../shared/data`) by the export environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from golden.detect_cases import Case, cases, facts
from golden.matching import Answer, Pair, pair
from golden.pictures import BY_NAME, PROJECT, default_folders
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings

pytestmark = pytest.mark.reference

SIZES = (320, 640, 960)
DATA = Path(os.environ.get("GATEWAY_REFERENCE_DATA", PROJECT.parent / "shared" / "data"))
EXPORT_PYTHON = PROJECT / ".venv-export" / "bin" / "python"
BY_PICTURE = {name: tuple(group) for name, group in groupby(cases(), key=lambda case: case.picture)}
Table = dict[int, list[tuple[Pair, Case]]]


def holds_the_checkpoint(repository: Path) -> bool:
    """Return whether all three branches were exported from the file that the golden data were made with."""
    wanted = ("checkpoint", facts()["checkpoint_sha256"])
    return all(weights_of(repository / f"yolo11n_{size}" / "1" / "weights.json") == wanted for size in SIZES)


def weights_of(path: Path) -> tuple[str, str] | None:
    if not path.is_file() or not path.with_name("model.onnx").is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["weights"], record["source"]["sha256"]


def export_into(folder: Path) -> Path:
    """A repository of the three branches, made by `python -m export` from the checkpoint."""
    repository = folder / "repository"
    places = ["--repository", str(repository), "--models", str(folder / "models")]
    for command in (
        ["repository"],
        ["models", "--set", "starter", "--weights", str(DATA / facts()["checkpoint"])],
    ):
        subprocess.run(
            [EXPORT_PYTHON, "-P", "-m", "export", *command, *places],
            cwd=folder,
            check=True,
            timeout=600,
        )
    return repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository whose `yolo11n_*` come from the reference checkpoint."""
    ready = PROJECT / "triton" / "models"
    if holds_the_checkpoint(ready):
        return ready
    name = facts()["checkpoint"]
    if not (DATA / name).is_file():
        pytest.skip(
            f"no trained models: triton/models has none of {name}, and GATEWAY_REFERENCE_DATA lacks the file"
        )
    if not EXPORT_PYTHON.is_file():
        pytest.skip(
            f"no trained models: triton/models has none of {name}, and there is no .venv-export to make them"
        )
    made = export_into(tmp_path_factory.mktemp("trained"))
    assert holds_the_checkpoint(made), (
        "the export is not of the checkpoint that the golden data were made with"
    )
    return made


@pytest.fixture(scope="module")
def client(repository: Path) -> Iterator[TestClient]:
    """The whole service with the embedded engine and the trained models, once they are loaded."""
    settings = Settings(
        engine="embedded",
        repository=repository,
        models="yolo11n_*",
        require_ready=",".join(f"yolo11n_{size}" for size in SIZES),
        variant="n",
        leases=1,
        embedded_threads=2,
    )
    with TestClient(create_app(settings)) as running:
        wait_until_ready(running)
        yield running


def wait_until_ready(client: TestClient, patience_s: float = 120) -> None:
    end = time.monotonic() + patience_s
    while (answer := client.get("/readyz")).status_code != 200:
        assert time.monotonic() < end, answer.text
        time.sleep(0.1)


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    """All pairs by size; printed in the end as the worst of each."""
    pairs: Table = {size: [] for size in SIZES}
    yield pairs
    plugins = request.config.pluginmanager
    reporter: Any = plugins.getplugin("terminalreporter")
    capture: Any = plugins.getplugin("capturemanager")
    if reporter and capture and any(pairs.values()):
        with capture.global_and_fixture_disabled():
            reporter.write_line("\n" + "\n".join(worst(pairs)))


def worst(pairs: Table) -> list[str]:
    lines = ["size  pictures  pairs  worst IoU  (where)                      worst score difference  (where)"]
    for size, found in pairs.items():
        if found:
            apart = min(found, key=lambda row: row[0].iou)
            unlike = max(found, key=lambda row: row[0].score_difference)
            pictures = len({case.picture for _, case in found})
            lines.append(
                f"{size:4}  {pictures:8}  {len(found):5}  {apart[0].iou:9.7f}  {apart[1].picture:28} "
                f"{unlike[0].score_difference:22.1e}  {unlike[1].picture}"
            )
    return lines


def ask(client: TestClient, picture: str, size: int) -> dict[str, Any]:
    """The answer of one branch for one picture, at the golden data's thresholds."""
    body, media_type = BY_NAME[picture].body(default_folders())
    response = client.post(
        "/v1/detect",
        params={key: facts()[key] for key in ("conf", "iou", "max_det")} | {"branch": f"yolo11n_{size}"},
        content=body,
        headers={"content-type": media_type},
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def as_answer(detections: list[dict[str, Any]]) -> Answer:
    return Answer.of(*([found[key] for found in detections] for key in ("box", "score", "class_id")))


def need(picture: str) -> None:
    if BY_NAME[picture].path(default_folders()) is None:
        pytest.skip(f"the package {BY_NAME[picture].package} isn't here")


@pytest.mark.parametrize("picture", BY_PICTURE)
def test_boxes_are_the_reference_s(client: TestClient, table: Table, picture: str) -> None:
    """At every size each reference box above 0.3 is answered, and each box answered above 0.31 is the reference's:
    same class, IoU > 0.95, scores within 0.01.
    """
    need(picture)
    for case in BY_PICTURE[picture]:
        answer = ask(client, picture, case.size)
        assert answer["branch"]["name"] == f"yolo11n_{case.size}"
        assert (answer["image"]["width"], answer["image"]["height"]) == (case.width, case.height)
        ours = as_answer(answer["detections"])
        reference = Answer.of(case.boxes, case.scores, case.class_ids)
        pairs = [*pair(reference, ours, above=0.3), *pair(ours, reference, above=0.31)]
        table[case.size] += [(match, case) for match in pairs]
        for match in pairs:
            assert match.iou > 0.95, f"{case}: {match}"
            assert match.score_difference < 0.01, f"{case}: {match}"


@pytest.mark.parametrize("size", SIZES)
def test_enough_pictures_are_compared(size: int) -> None:
    """At least 20 pictures have a box above 0.3 to compare at this size, so that the parity means something."""
    if any(picture.path(default_folders()) is None for picture in BY_NAME.values()):
        pytest.skip("a package with pictures isn't here")
    assert sum(case.size == size and case.scores[:1].sum() > 0.3 for case in cases()) >= 20


def test_the_bus_and_its_people(client: TestClient) -> None:
    """`bus.jpg` at 640 has a bus and at least three people, by trained weights that the answer names."""
    need("bus")
    answer = ask(client, "bus", 640)
    names = [found["class_name"] for found in answer["detections"]]
    assert names.count("bus") == 1
    assert names.count("person") >= 3
    assert answer["models_used"][0]["weights"] == "checkpoint"
