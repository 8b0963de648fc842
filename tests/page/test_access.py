"""The page for everyone: rules of accessibility, the keyboard alone, a phone, a dark screen."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from support.paths import ROOT
from support.servers.try_page import choose, ended, run

PICTURE = ROOT / "docs" / "astronaut.jpg"
SERIOUS = {"serious", "critical"}


def _findings(page: Page) -> list[tuple[str, str]]:
    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in SERIOUS]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_has_no_serious_findings(page: Page, gateway: str, scheme: str, width: int) -> None:
    """Empty, with options, with each kind of answer, with a refusal; and nothing is wider than the screen."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 740})
    page.goto(gateway)
    assert _findings(page) == []
    page.get_by_text("Options").click()
    choose(page, "Motion", PICTURE, PICTURE)
    run(page)
    assert _findings(page) == []
    choose(page, "Prompts")
    run(page)
    choose(page, "Objects", ROOT / "docs" / "astronaut.mp4")
    run(page)
    assert _findings(page) == []
    choose(page, "Objects", ROOT / "README.md")
    run(page)
    expect(page.get_by_role("alert")).not_to_be_empty()
    assert _findings(page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_the_keyboard_is_enough(page: Page, gateway: str) -> None:
    """Choose a task and a file, run, and read the answer; each stop on the way is visible."""
    # Chromium hands choosers over from here on; it must know that before the key is pressed.
    page.on("filechooser", lambda _: None)
    page.goto(gateway)
    _tab_to(page, "task-detect")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("radio", name="Depth")).to_be_checked()
    page.keyboard.press("ArrowUp")
    _tab_to(page, "file0")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(PICTURE)
    _tab_to(page, "run")
    page.keyboard.press("Enter")
    ended(page)
    expect(page.locator("#made")).to_contain_text("Signature sha256:")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.closest('#result') !== null")


def _tab_to(page: Page, wanted: str) -> None:
    """Press Tab until the element has the focus, which is drawn around it."""
    for _ in range(30):
        page.keyboard.press("Tab")
        focused, outline = page.evaluate(
            "() => [document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert outline == "solid", focused
        if focused == wanted:
            return
    pytest.fail(f"Tab never reaches {wanted}")
