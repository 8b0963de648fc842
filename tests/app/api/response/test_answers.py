"""Headers of answers."""

from __future__ import annotations

import json

from support.models.repository import CATALOGUE

from app.api.response.answers import binary_answer, json_answer, total
from app.engine.base import ModelState, Weights
from app.pipelines.base import STAGES, Served, Timings
from routing.policy import Decision, Readiness

BRANCH = CATALOGUE.branches["yolo11n_320"]
FOREIGN = 'Zürich \U0001f600 \u2028 "quoted" \\ \r\nX-Evil: 1'


def _served(kind: str) -> Served:
    model = ModelState(BRANCH.name, Readiness.READY, weights=Weights(kind=kind), runtime="inprocess")
    return Served(CATALOGUE["detect"], Decision(BRANCH, "rule", "rule: a test"), model, Timings())


def test_provenance_of_any_text_is_one_header_of_ascii_json() -> None:
    """Text from outside (a weights.json) keeps its characters, and can't break out of the header."""
    header = binary_answer(b"", "image/png", _served(FOREIGN)).headers["x-provenance"]
    assert header.isascii()
    assert header.isprintable()
    assert json.loads(header)["models_used"][0]["weights"] == FOREIGN


def test_the_time_of_encoding_is_in_the_answer() -> None:
    """Server-Timing is written after the body was encoded, with every stage in order."""
    timings = Timings()
    timings.ms["infer"] = 1.25
    header = json_answer({"numbers": list(range(10_000))}, timings).headers["server-timing"]
    stages = dict(part.split(";dur=") for part in header.split(", "))
    assert tuple(stages) == STAGES
    assert stages["infer"] == "1.250"
    assert float(stages["encode"]) > 0


def test_the_stages_of_a_batch_are_added_up() -> None:
    """A batch says what its frames took together, and of nothing it says zero."""
    frames = [Timings(), Timings()]
    frames[0].ms |= {"decode": 1.0, "infer": 2.0}
    frames[1].ms |= {"decode": 0.5}
    assert total(frames).ms == dict.fromkeys(STAGES, 0.0) | {"decode": 1.5, "infer": 2.0}
    assert total([]).ms == dict.fromkeys(STAGES, 0.0)
