"""`GET /docs` in a real browser that can reach nothing but the gateway."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from support.servers.gateway import server
from support.servers.programs import program

Server = tuple[httpx2.Client, int]


@pytest.fixture(scope="module")
def running(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server."""
    with server(repository, tmp_path_factory.mktemp("gateway") / "log") as started:
        yield started


def _shown(url: str, folder: Path) -> tuple[str, str, set[str]]:
    """The page as Chromium builds it, what it complains of, and the hosts that the page asked."""
    log = folder / "net.json"
    done = subprocess.run(
        [
            program("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--enable-logging=stderr", f"--log-net-log={log}", "--virtual-time-budget=20000", "--dump-dom", url,
        ],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    # Chromium asks its maker for updates; only what the page asked for counts.
    facts = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = {fact["url"] for fact in facts if "url" in fact and url.startswith(fact.get("initiator", "-"))}
    hosts = {found[1] for address in asked if (found := re.match(r"https?://([^/]+)/", address))}
    return done.stdout, done.stderr, hosts


def test_the_page_works_without_the_internet(running: Server, tmp_path: Path) -> None:
    """Every operation is shown, no other host is asked, and the page's own policy stops nothing."""
    http, _ = running
    text, complaints, hosts = _shown(f"http://127.0.0.1:{http.base_url.port}/docs", tmp_path)
    paths = http.get("/openapi.json").json()["paths"]
    shown = set(re.findall(r'data-path="([^"]+)"', text))
    assert shown == set(paths)
    assert hosts == {f"127.0.0.1:{http.base_url.port}"}
    assert "Content Security Policy" not in complaints
    assert "Uncaught" not in complaints


def test_the_page_names_no_other_host(running: Server) -> None:
    """Its text and its policy."""
    answer = running[0].get("/docs")
    assert "//" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "http" not in policy
    assert "unsafe-eval" not in policy


@pytest.mark.parametrize(
    ("name", "kind"),
    [("swagger-ui-bundle.js", "javascript"), ("swagger-ui.css", "css"), ("start.js", "javascript")],
)
def test_what_the_page_needs_is_served_packed_and_unpacked(running: Server, name: str, kind: str) -> None:
    """The same bytes for callers that take gzip and for those that don't."""
    http, _ = running
    plain = http.get(f"/docs/{name}", headers={"accept-encoding": "identity"})
    packed = http.get(f"/docs/{name}", headers={"accept-encoding": "gzip"})
    assert (plain.status_code, packed.status_code) == (200, 200)
    assert kind in plain.headers["content-type"]
    assert "content-encoding" not in plain.headers
    assert plain.content == packed.content
    assert len(plain.content) > 50


@pytest.mark.parametrize("name", ["LICENSE", "swagger-ui.css.gz", "..%2fmain.py", "nothing.js"])
def test_nothing_else_is_served_from_its_folder(running: Server, name: str) -> None:
    """Three names, and no path."""
    assert running[0].get(f"/docs/{name}").status_code == 404
    assert running[0].get("/redoc").status_code == 404
