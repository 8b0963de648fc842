"""Refusals and keys on the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.paths import ROOT
from support.servers.gateway import server
from support.servers.try_page import choose, run

from app.keys.access import ApiKey, digest_of, entry, new_key

PICTURE = ROOT / "docs" / "astronaut.jpg"


def test_a_damaged_file_is_refused_with_its_code_and_the_next_one_is_answered(
    page: Page, gateway: str, tmp_path: Path
) -> None:
    """The problem is announced, with code, advice and request id."""
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(PICTURE.read_bytes()[:2000])
    page.goto(gateway)
    choose(page, "Objects", damaged)
    run(page)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("invalid_image")
    expect(alert).to_contain_text("request ")
    choose(page, "Objects", PICTURE)
    run(page)
    expect(alert).to_be_empty()
    expect(page.locator("#made")).to_contain_text("Signature sha256:")


def test_something_missing_is_asked_for(page: Page, gateway: str) -> None:
    """Nothing is sent."""
    page.goto(gateway)
    assert run(page) == "Choose a file first."
    choose(page, "Motion", PICTURE)
    assert run(page) == "Choose the second picture, too, or one video."
    choose(page, "Prompts")
    page.get_by_label("Prompts, one per line").fill(" \n")
    assert run(page) == "Write at least one prompt."


def test_keys_are_asked_for_and_kept_in_the_tab(page: Page, all_families: Path, tmp_path: Path) -> None:
    """Refused keys are asked for again; the right one stays in this tab only, and can be forgotten."""
    right = new_key()
    entries = entry(ApiKey("page", digest_of(right.encode()), frozenset({"infer"})))
    with server(all_families, tmp_path / "log", api_keys=entries) as (http, _):
        page.goto(str(http.base_url))
        dialog = page.get_by_role("dialog", name="API key")
        _give(page, new_key())
        expect(dialog).to_contain_text("The gateway refused the key")
        _give(page, right)
        expect(dialog).to_be_hidden()
        choose(page, "Objects", PICTURE)
        run(page)
        expect(page.locator("#made")).to_contain_text("Signature sha256:")
        assert "$GATEWAY_KEY" in page.get_by_role("region", name="The request for curl").inner_text()
        assert page.evaluate("() => [localStorage.length, document.cookie]") == [0, ""]
        page.reload()
        expect(page.get_by_role("button", name="Forget the API key")).to_be_visible()
        other = page.context.new_page()
        other.goto(str(http.base_url))
        expect(other.get_by_role("dialog", name="API key")).to_be_visible()
        other.close()
        page.get_by_role("button", name="Forget the API key").click()
        choose(page, "Objects", PICTURE)
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()


def _give(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()


@pytest.mark.parametrize("size", [70_000, 30_000_000])
def test_a_file_that_is_too_large_is_refused_in_words(
    page: Page, all_families: Path, tmp_path: Path, size: int
) -> None:
    """The gateway refuses it before all of it has been sent."""
    large = tmp_path / "large.jpg"
    large.write_bytes(PICTURE.read_bytes() + bytes(size))
    with server(all_families, tmp_path / "log", max_body_bytes=65_536) as (http, _):
        page.goto(str(http.base_url))
        choose(page, "Objects", large)
        run(page)
        expect(page.get_by_role("alert")).to_contain_text("payload_too_large")
