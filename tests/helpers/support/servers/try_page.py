"""The page at `GET /` as its visitors use it."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

TIMEOUT_MS = 120_000  # for a machine that is busy with other tests
expect.set_options(timeout=TIMEOUT_MS)


def choose(page: Page, task: str, *files: Path) -> None:
    """Choose a task and its files."""
    page.get_by_role("radio", name=re.compile(rf"^{task}( not ready)?$")).check()
    for place, file in enumerate(files):
        page.set_input_files(f"#file{place}", file)


def run(page: Page) -> str:
    """Send the form; return what is said at the end."""
    before = int(page.locator("#result").get_attribute("data-runs") or 0)
    page.get_by_role("button", name="Run").click()
    ended(page, before + 1)
    return page.get_by_role("status").first.inner_text()


def ended(page: Page, runs: int = 1) -> None:
    """Wait until so many requests of the page are over."""
    expect(page.locator("#result")).to_have_attribute("data-runs", str(runs))
