"""The limit and its HTTP form on a real Triton: they answer what the gateway answers."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from support.waiting import PATIENCE_S

from benchmarks.common import null_models
from benchmarks.common.cases import CASES, MAIN, select
from benchmarks.common.http_load import ask
from benchmarks.common.services import triton
from benchmarks.speed.ratios import HIGHER_IS_BETTER
from benchmarks.speed.report import markdown, terminal
from benchmarks.speed.run import Run, figures
from benchmarks.speed.targets import Effort, HttpTarget, LimitTarget, bare, limit, ours

pytestmark = pytest.mark.triton
QUICK = Effort(0.1, 0.1, 0.1)
# Every family, every size, and maps in the picture's size.
SOME = select("*_640x480,detect_1080p,clip_image_1080x1350,places_4k,depth_640x480_source")


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LimitTarget, HttpTarget, HttpTarget]]:
    folder = tmp_path_factory.mktemp("speed")
    repository = null_models.build(folder / "models")
    with ExitStack() as stack:
        url = stack.enter_context(triton(repository, folder / "triton.log")).grpc_url
        yield (
            stack.enter_context(limit(SOME, url, folder / "limit.log")),
            stack.enter_context(bare(SOME, url, folder / "bare.log")),
            stack.enter_context(ours("ours", SOME, url, folder / "ours.log", repository)),
        )


def test_no_picture_has_a_branchs_own_size() -> None:
    """A picture that needs no resizing would hide the cost of resizing."""
    assert all(case.width != case.height for case in CASES.values())


def test_cases_are_chosen_by_name_family_and_pattern() -> None:
    """One case is measured once, in the order of the command line; what names none is refused."""
    assert select("main") == MAIN
    assert select("detect_1080p,detect_*")[0] == "detect_1080p"
    assert len(select("detect_1080p,detect_*")) == len(select("detect_*")) == 4
    with pytest.raises(ValueError, match="no case"):
        select("detect_640x480,nothing")


@pytest.mark.parametrize("name", SOME)
def test_every_target_answers_every_case(
    targets: tuple[LimitTarget, HttpTarget, HttpTarget], name: str
) -> None:
    """All targets do the same work; four requests at once work, too."""
    for target in targets:
        assert target.check(CASES[name]) is None
        row = target.run(CASES[name], 4, 0.1)
        assert row["rate"] > 0
        assert row["cpu_ms"] > 0
        assert row["rss_mb"] > 10


@pytest.mark.parametrize("name", [name for name in SOME if name.startswith("detect")])
def test_the_limit_finds_the_gateways_boxes(
    targets: tuple[LimitTarget, HttpTarget, HttpTarget], name: str
) -> None:
    """A limit that skipped a part of the work would be none."""
    _, barest, gateway = targets
    answers = [json.loads(_first(target, name)) for target in (barest, gateway)]
    assert answers[0]["image"] == answers[1]["image"]
    rows = [[(*d["box"], d["score"], d["class_id"]) for d in answer["detections"]] for answer in answers]
    np.testing.assert_allclose(sorted(rows[0]), sorted(rows[1]), atol=0.01)


def test_the_limit_answers_the_gateways_depth(targets: tuple[LimitTarget, HttpTarget, HttpTarget]) -> None:
    """The same map; the null model's value is the picture's first pixel, so the picture has arrived."""
    maps = [np.load(io.BytesIO(_first(target, "depth_640x480"))) for target in targets[1:]]
    np.testing.assert_allclose(maps[0], maps[1], atol=8)  # two resizers: levels of one pixel


def _first(target: HttpTarget, name: str) -> bytes:
    return ask(target.port, target.requests[name][0])


def test_a_run_writes_figures_ratios_and_tables(tmp_path: Path) -> None:
    """One short run from Triton's start to the document."""
    run = Run(("limit", "ours"), MAIN[:1], QUICK, tmp_path)
    run.go(2)
    found = json.loads(json.dumps(figures(run)))
    assert set(found["ratios"]) == {"ours / limit"}
    assert found["memory_after"]["ours"]["without_tensors_mb"] > 10
    for figure in HIGHER_IS_BETTER:
        ratio = found["ratios"]["ours / limit"][figure][MAIN[0]]
        assert 0 < ratio["least"] <= ratio["median"] <= ratio["greatest"]
    assert len(found["rounds"]["ours"][MAIN[0]]) == 2
    text = markdown(found)
    assert f"| {MAIN[0]} |" in text
    assert "| resident MB of the worker" in text
    assert found["environment"]["triton"] in text
    assert "requests/s" in terminal(found)


def test_the_guard_needs_something_to_compare_with(tmp_path: Path) -> None:
    """Without committed figures it fails before it measures."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.speed.regression",
        "--committed",
        str(tmp_path / "none.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2
    assert "nothing to compare with" in done.stderr
