"""Every family, tried on the page: what is drawn and said is what the API answers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Page, expect
from support.models import repository as test_repository
from support.paths import ROOT
from support.servers.gateway import png, scene, server
from support.servers.try_page import choose, run

HOSTILE = "<img src=x onerror=alert(1)>'\"; $(id) `id`\u202e.png"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Two objects."""
    path = tmp_path / "scene.png"
    path.write_bytes(png(scene(320, 256, (0, 32, 32, 32), (1, 160, 96, 32))))
    return path


def test_boxes_are_those_of_the_api(page: Page, gateway: str, picture: Path) -> None:
    """Each is drawn in source pixels, and listed with class and score."""
    answer = httpx2.post(f"{gateway}v1/detect", content=picture.read_bytes()).json()
    page.goto(gateway)
    choose(page, "Objects", picture)
    assert run(page).startswith("2 objects. ")
    drawn = [
        [float(box.get_attribute(name) or "nan") for name in ("x", "y", "width", "height")]
        for box in page.locator("svg .box").all()
    ]
    wanted = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (one["box"] for one in answer["detections"])]
    assert drawn == [pytest.approx(box, abs=1e-3) for box in wanted]
    labels = [f"{one['class_name']} {one['score']:.2f}" for one in answer["detections"]]
    assert page.locator("svg .label text").all_text_contents() == labels
    rows = page.get_by_role("region", name="Objects").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text(answer["detections"][0]["class_name"])
    _says_how_it_was_made(page, answer)


@pytest.mark.parametrize(
    ("task", "path", "says"),
    [
        ("Scene", "v1/places", re.compile(r"^\w+ 0\.\d\d\. ")),
        ("Picture embedding", "v1/clip/image", re.compile(r"^an embedding of 512 numbers\. ")),
    ],
)
def test_a_picture_through_the_other_families(
    page: Page, gateway: str, picture: Path, task: str, path: str, says: re.Pattern[str]
) -> None:
    """The same signature as that of the API's answer."""
    answer = httpx2.post(f"{gateway}{path}", content=picture.read_bytes()).json()
    page.goto(gateway)
    choose(page, task, picture)
    assert says.search(run(page))
    _says_how_it_was_made(page, answer)


@pytest.mark.parametrize(("task", "files"), [("Depth", 1), ("Motion", 2)])
def test_maps_lie_over_the_picture(page: Page, gateway: str, picture: Path, task: str, files: int) -> None:
    """The API's own picture, in the size of the source; a slider lets the source through."""
    page.goto(gateway)
    choose(page, task, *[picture] * files)
    assert run(page).startswith(f"{task.lower()} drawn. ")
    layer = page.get_by_role("img", name=task, exact=True)
    assert layer.evaluate("map => map.decode().then(() => [map.naturalWidth, map.naturalHeight])") == [
        320,
        256,
    ]
    assert layer.evaluate("map => [map.clientWidth, map.clientHeight]") == [320, 256]
    page.get_by_label(f"{task}, over the picture").fill("10")
    assert layer.evaluate("map => map.style.opacity") == "0.1"
    run(page)
    expect(page.locator(".map")).to_have_count(1)
    expect(page.locator("#made .badge")).to_have_text("random")


def test_prompts_are_compared_with_a_picture_and_with_each_other(
    page: Page, gateway: str, picture: Path
) -> None:
    """Scores of each prompt, the best first; without a picture, a cosine for each pair."""
    page.goto(gateway)
    choose(page, "Picture and prompts", picture)
    page.get_by_label("Prompts, one per line").fill("a cat\n\n<b>a dog</b>\n")
    assert "fits best" in run(page)
    expect(page.get_by_role("region", name="Prompts").locator("tbody tr")).to_have_count(2)
    expect(page.locator("svg .label text")).to_have_count(2)
    expect(page.locator("#made .badge")).to_have_text(["random", "random"])
    choose(page, "Prompts")
    assert run(page).startswith("2 embeddings of 512 numbers")
    expect(page.get_by_role("region", name="Cosine between the prompts").locator("td").nth(1)).to_have_text(
        "1.00"
    )
    expect(page.locator("#found b")).to_have_count(0)


def test_hostile_names_are_text(page: Page, tmp_path_factory: pytest.TempPathFactory, picture: Path) -> None:
    """File names and class names are shown as they are written, and the copied line names the file and runs nothing."""
    root = tmp_path_factory.mktemp("hostile")
    labels = ("<script>alert(1)</script>", "</text><img src=x onerror=alert(2)>")
    for name in test_repository.DETECTORS:
        branch = test_repository.CATALOGUE.branches[name]
        hostile = replace(branch, labels=(*labels, *branch.labels[2:]))
        test_repository.build(root, ())
        for spec in branch.models:
            test_repository.write_model(root, spec, hostile)
    file = shutil.copy(picture, picture.with_name(HOSTILE))
    with server(root, root / "log") as (http, _):
        page.goto(str(http.base_url))
        choose(page, "Objects", file)
        run(page)
        shown = page.locator("svg .label text").all_text_contents()
        assert [text.rpartition(" ")[0] for text in shown] == list(labels)
        expect(page.locator("figcaption")).to_have_text(HOSTILE)
        assert page.locator("main script, #stage img:not([alt^='Picture'])").count() == 0
        copied = page.get_by_role("region", name="The request for curl").inner_text()
        assert copied.startswith("curl --data-binary '@<img src=x onerror=alert(1)>'\\''\"; $(id) `id`")
        expect(page.get_by_role("region", name="Objects")).to_contain_text("<script>alert(1)</script>")


def test_it_works_under_the_path_of_a_proxy(page: Page, gateway: str, picture: Path) -> None:
    """No address of the page leaves the path."""

    def forward(route, request) -> None:
        route.fulfill(response=route.fetch(url=request.url.replace("/vision/", "/", 1)))

    asked: list[str] = []
    page.route("**/vision/**", forward)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{gateway}vision/")
    page.get_by_role("button", name="Use an example picture").click()
    expect(page.locator("figcaption")).to_have_text("astronaut.jpg")
    run(page)
    expect(page.get_by_role("region", name="The request for curl")).to_contain_text(
        f"{gateway}vision/v1/detect"
    )
    assert [url for url in asked if url.startswith("http") and "/vision/" not in url] == []


def test_copied_requests_get_the_same_answer(page: Page, gateway: str, tmp_path: Path) -> None:
    """Each is run in a shell, for a picture and a video, beside a file whose name is hostile."""
    (tmp_path / "httpx.py").write_text("from httpx2 import *\n")  # the client library that the tests have
    page.goto(gateway)
    for name in ("astronaut.jpg", "astronaut.mp4"):
        file = shutil.copy(ROOT / "docs" / name, tmp_path / f"{HOSTILE}{name}")
        choose(page, "Objects", file)
        run(page)
        signature = page.locator("#made .word").last.inner_text()
        python = page.get_by_role("region", name="The request for Python").inner_text()
        assert signature in _printed([sys.executable, "-c", python], tmp_path)
        if shutil.which("curl"):
            line = page.get_by_role("region", name="The request for curl").inner_text()
            assert signature in _printed(["bash", "-c", line], tmp_path)


def _printed(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def _says_how_it_was_made(page: Page, answer: dict) -> None:
    """Stages, branch and reason, weights and signature."""
    made = page.locator("#made")
    for stage in ("decode", "queue", "prepare", "infer", "finish", "encode"):
        expect(made.get_by_role("cell", name=stage, exact=True)).to_be_visible()
    expect(made).to_contain_text(answer["branch"]["name"])
    expect(made).to_contain_text(answer["branch"]["why"])
    expect(made).to_contain_text(answer["model_signature"])
    expect(made).to_contain_text(answer["models_used"][0]["weights_digest"])
    expect(made.locator(".badge")).to_have_text("random")
    expect(made.get_by_role("list", name="Warnings")).to_contain_text("random weights")
