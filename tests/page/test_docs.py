"""`GET /docs`, the reference of the API, in a browser that reaches nothing but the gateway."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Page, expect
from support.servers.gateway import server
from support.waiting import PATIENCE_S

from app.keys.access import ApiKey, digest_of, entry, new_key


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_route_is_listed_offline(page: Page, gateway: str, scheme: str) -> None:
    """Every operation of the OpenAPI document. The page asks the gateway alone, and its policy stops nothing of it."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{gateway}docs")
    paths = httpx2.get(f"{gateway}openapi.json", timeout=PATIENCE_S).json()["paths"]
    described = [
        (method.upper(), path, operation["tags"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]
    wanted = {(method, path) for method, path, _ in described}
    operations = page.locator(".opblock")
    expect(operations).to_have_count(
        sum(len(tags) for _, _, tags in described)
    )  # one of two tags is shown twice
    shown = {
        (
            one.locator(".opblock-summary-method").inner_text(),
            one.locator(".opblock-summary-path").get_attribute("data-path"),
        )
        for one in operations.all()
    }
    assert shown == wanted
    names = {url.removeprefix(gateway) for url in asked if not url.startswith("data:")}
    assert names == {
        "docs",
        "docs/swagger-ui.css",
        "docs/swagger-ui-bundle.js",
        "docs/start.js",
        "openapi.json",
    }
    dark = page.evaluate("() => document.documentElement.classList.contains('dark-mode')")
    assert dark == (scheme == "dark")


def test_a_request_is_tried_with_a_key(page: Page, all_families: Path, tmp_path: Path) -> None:
    """The page opens without a key; what it tries is refused until it is given one, and answered then."""
    key = new_key()
    entries = entry(ApiKey("docs", digest_of(key.encode()), frozenset({"infer"})))
    with server(all_families, tmp_path / "log", api_keys=entries) as (http, _):
        page.goto(f"http://127.0.0.1:{http.base_url.port}/docs")
        one = page.locator(".opblock", has=page.locator("[data-path='/v1/branches']"))
        one.locator(".opblock-summary-control").click()
        one.get_by_role("button", name="Try it out").click()
        one.get_by_role("button", name="Execute").click()
        answered = one.locator(".live-responses-table td.response-col_status:not(.col_header)")
        expect(answered).to_contain_text("401")
        page.get_by_role("button", name="Authorize").first.click()
        dialog = page.locator(".modal-ux")
        header = dialog.locator(".auth-container", has_text="X-API-Key")
        header.get_by_role("textbox").fill(key)
        header.get_by_role("button", name="Apply credentials").click()
        dialog.get_by_role("button", name="Close").first.click()
        one.get_by_role("button", name="Execute").click()
        expect(answered).to_contain_text("200")
        expect(one.locator(".live-responses-table")).to_contain_text("yolo11n_320")
