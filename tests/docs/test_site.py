"""The built documentation site (`make docs`), opened from its folder by a Chromium that reaches nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from support.paths import ROOT
from support.servers.programs import program

SITE = ROOT / "out" / "site" / "html"
TIMEOUT_MS = 120_000


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A tab that fails the tests if anything but the folder's files is asked for."""
    elsewhere: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program("chromium"),
            args=["--no-sandbox", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND"],
        )
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.set_default_timeout(TIMEOUT_MS)
        opened.on(
            "request",
            lambda request: (
                None if request.url.startswith(("file:", "data:", "blob:")) else elsewhere.append(request.url)
            ),
        )
        yield opened
        browser.close()
    assert elsewhere == []


def test_the_start_page_leads_to_the_first_tutorial(page: Page) -> None:
    """By its own link, from the folder."""
    page.goto((SITE / "index.html").as_uri())
    expect(page.locator("h1")).to_contain_text("Triton vision gateway")
    page.goto((SITE / "tutorials" / "first-boxes.html").as_uri())
    expect(page.locator("h1")).to_contain_text("First boxes")
    expect(page.locator("article img")).to_be_visible()


def test_diagrams_are_drawn(page: Page) -> None:
    """Mermaid's script is part of the site."""
    page.goto((SITE / "architecture.html").as_uri())
    expect(page.locator("div.mermaid")).to_have_count(2)


def test_the_search_finds_a_page(page: Page) -> None:
    """From the folder, where a browser starts no worker."""
    page.goto((SITE / "tutorials" / "camera.html").as_uri())
    page.keyboard.press("Control+k")
    page.keyboard.type("webhook")
    expect(page.get_by_text(re.compile(r"^\d+ results$"))).to_be_visible(timeout=TIMEOUT_MS)


def test_references_are_there(page: Page) -> None:
    """Routes, docstrings and commands."""
    for name, heading in (("http", "detect"), ("vision", "app.vision.letterbox"), ("cli", "gateway-serve")):
        page.goto((SITE / "reference" / f"{name}.html").as_uri())
        expect(page.locator(f'[id="{heading}"]')).to_have_count(1)
