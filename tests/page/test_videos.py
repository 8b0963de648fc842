"""A video on the page: line by line, until its end or until the visitor stops it."""

from __future__ import annotations

from playwright.sync_api import Page, expect
from support.paths import ROOT
from support.servers.try_page import choose, run

FILM = ROOT / "docs" / "astronaut.mp4"


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
