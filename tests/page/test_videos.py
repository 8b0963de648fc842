"""A video on the page: line by line, until its end or until the visitor stops it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import httpx2
import psutil
from playwright.sync_api import Page, expect
from support import videos
from support.paths import ROOT
from support.servers.gateway import png, scene
from support.servers.try_page import choose, ended, run
from support.waiting import PATIENCE_S, eventually

FILM = ROOT / "docs" / "astronaut.mp4"
STREAMS = "gateway_video_streams_in_progress"
WORK = ("gateway_inferences_total", "gateway_video_frames_total")


def _number(gateway: str, metric: str) -> float:
    """The sum of a metric's series."""
    text = httpx2.get(f"{gateway}metrics", timeout=PATIENCE_S).text
    found = re.findall(rf"^{metric}(?:\{{.*\}})? (\S+)", text, re.MULTILINE)
    return sum(map(float, found))


def _decoders() -> int:
    """Processes below this one that decode a video; see `app.media.video.child`."""
    count = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            count += process.cmdline()[1:4] == ["-I", "-S", "-c"]
    return count


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
    """The lines that have come stay. The decoder's process is gone, no frame is answered and no model runs any more."""
    pictures = (videos.numbered(number % 4096) for number in range(20_000))
    film = videos.write(tmp_path / "long.mp4", pictures, preset="ultrafast")
    page.goto(gateway)
    choose(page, "Scene", film)
    page.get_by_text("Options").click()
    page.get_by_label("Frames per second (videos)").fill("1000")
    page.get_by_role("button", name="Run").click()
    lines = page.get_by_role("region", name="Frames, the newest first").get_by_role("listitem")
    expect(lines.nth(3)).to_be_visible()
    assert (_number(gateway, STREAMS), _decoders()) == (1, 1)
    page.get_by_role("button", name="Stop").click()
    ended(page)
    said = page.get_by_role("status").first
    expect(said).to_have_text(re.compile(r"^Stopped by you after \d+ frames\.$"))
    eventually(lambda: _number(gateway, STREAMS) == 0 and _decoders() == 0)
    before = [_number(gateway, metric) for metric in WORK]
    for _ in range(3):  # what the gateway does from now on is what it is asked for
        httpx2.post(
            f"{gateway}v1/places", content=png(scene(320, 256)), timeout=PATIENCE_S
        ).raise_for_status()
    after = [_number(gateway, metric) for metric in WORK]
    assert [now - then for now, then in zip(after, before, strict=True)] == [3, 0]
    expect(lines.nth(3)).to_be_visible()
    expect(page.locator("#made")).to_contain_text("Signature sha256:")
    expect(page.get_by_role("button", name="Run")).to_be_enabled()
