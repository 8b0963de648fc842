"""A video on the page: line by line, until its end or until the visitor stops it."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2
from playwright.sync_api import Page, expect
from support import videos
from support.paths import ROOT
from support.servers.try_page import choose, ended, run
from support.waiting import eventually

FILM = ROOT / "docs" / "astronaut.mp4"


def _streams(gateway: str) -> float:
    found = re.search(
        r"^gateway_video_streams_in_progress(?:\{.*\})? (\S+)",
        httpx2.get(f"{gateway}metrics").text,
        re.MULTILINE,
    )
    assert found is not None
    return float(found[1])


def test_lines_are_listed_and_drawn(page: Page, gateway: str) -> None:
    """A line per sampled frame; a line's time shows its frame, and the summary says how it was made."""
    page.goto(gateway)
    choose(page, "Scene", FILM)
    assert run(page) == "Done: 20 frames, 0 with an error."
    lines = page.get_by_role("region", name="Frames, the newest first").get_by_role("listitem")
    expect(lines).to_have_count(20)
    lines.last.get_by_role("button").click()
    expect(page.locator("svg .label text")).to_have_count(3)
    expect(page.locator("#made .badge")).to_have_text("random")
    expect(page.get_by_role("region", name="The request for curl")).to_contain_text("curl -N --data-binary")


def test_stopping_ends_the_work_of_the_gateway(page: Page, gateway: str, tmp_path: Path) -> None:
    """The lines that have come stay, and the gateway decodes no more."""
    pictures = (videos.numbered(number % 4096) for number in range(20_000))
    film = videos.write(tmp_path / "long.mp4", pictures, preset="ultrafast")
    page.goto(gateway)
    choose(page, "Scene", film)
    page.get_by_text("Options").click()
    page.get_by_label("Frames per second (videos)").fill("1000")
    page.get_by_role("button", name="Run").click()
    lines = page.get_by_role("region", name="Frames, the newest first").get_by_role("listitem")
    expect(lines.nth(3)).to_be_visible()
    assert _streams(gateway) == 1
    page.get_by_role("button", name="Stop").click()
    ended(page)
    said = page.get_by_role("status").first
    expect(said).to_have_text(re.compile(r"^Stopped by you after \d+ frames\.$"))
    eventually(lambda: _streams(gateway) == 0)
    expect(lines.nth(3)).to_be_visible()
    expect(page.locator("#made")).to_contain_text("Signature sha256:")
    expect(page.get_by_role("button", name="Run")).to_be_enabled()
