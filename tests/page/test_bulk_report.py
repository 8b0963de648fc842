"""The report of a bulk run in a browser, opened from a folder."""

from __future__ import annotations

from array import array
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.bulk.outcomes import Outcome
from app.bulk.report.data import Bin, MadeBy, ReportData
from app.bulk.report.page import page as report
from app.bulk.summary import Reason, Run, Summary

BEGAN = datetime(2026, 5, 1, 12, tzinfo=UTC)


def document() -> str:
    """A report with everything in it."""
    run = Run("r1", "everything", BEGAN, 120, None)
    summary = Summary(
        run, Counter(done=100, failed=12, poison=1), 7, 12_000, 400.0, BEGAN + timedelta(minutes=5), 40.0, 0.4, 17.5,
        [Outcome("cam1/<b>long</b>.mp4", "u", "done", seconds=60.0, frames=900, attempts=2)],
        [Reason("invalid_video", 12, (("a.mp4", "it is empty"),)), Reason("poison", 1, (("b.mp4", "killed"),))],
    )  # fmt: skip
    bins = [Bin(BEGAN + timedelta(seconds=10 * place), 30 + place % 7, 0.4) for place in range(30)]
    model = {"model_name": "yolo11n_640", "weights_digest": f"sha256:{'a' * 64}", "runtime": "inprocess"}
    data = ReportData(
        array("d", range(1, 200)), bins, [MadeBy(f"sha256:{'b' * 64}", "c" * 64, 100, (model,))]
    )
    return report("s3://bucket/run", summary, data, "0.1.0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_in_both_schemes(page: Page, tmp_path: Path, scheme: str) -> None:
    """Text and plots take the colours of the scheme, nothing is cut off on a phone, and axe finds nothing serious."""
    path = tmp_path / "a report.html"
    path.write_text(document(), encoding="utf-8")
    page.emulate_media(color_scheme=scheme)
    page.goto(path.as_uri())
    expect(page.get_by_role("img")).to_have_count(3)
    text = page.evaluate("getComputedStyle(document.body).color")
    drawn = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert drawn == text
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 29)"
    )
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    serious = [
        found["id"]
        for found in Axe().run(page).response["violations"]
        if found["impact"] in ("serious", "critical")
    ]
    assert serious == []
