"""A real Chromium that reaches nothing but the gateway, and a gateway with a branch of every family."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright
from support.servers.gateway import server
from support.servers.programs import program
from support.servers.try_page import TIMEOUT_MS  # it gives every expectation the same patience


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a module: while it runs, its event loop has the thread."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program("chromium"),
            args=[
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        yield started
        started.close()


@pytest.fixture(scope="session")
def gateway(all_families: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a gateway without keys."""
    with server(all_families, tmp_path_factory.mktemp("gateway") / "log") as (http, _):
        yield f"http://127.0.0.1:{http.base_url.port}/"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty tab, which fails the test if a script fails, a policy is broken or another host is asked."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(TIMEOUT_MS)
    opened = context.new_page()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: complaints.extend(_complaint(message)))
    opened.on("request", lambda request: complaints.extend(_elsewhere(request.url)))
    yield opened
    context.close()
    assert complaints == []


def _complaint(message: ConsoleMessage) -> list[str]:
    """A warning or an error, except that of a refusal, which the page shows."""
    shown = message.type not in {"warning", "error"} or message.text.startswith("Failed to load resource")
    return [] if shown else [message.text]


def _elsewhere(url: str) -> list[str]:
    return (
        [] if url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:", "file:///")) else [url]
    )
