"""Screenshots of the page for docs/page.md, from a running gateway with a trained detector.

python docs/make_page_pictures.py [http://127.0.0.1:8080/]
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

DOCS = Path(__file__).parent
Scheme = Literal["light", "dark"]
# Name -> width and height of the screen, colours, file.
PICTURES: dict[str, tuple[int, int, Scheme, str]] = {
    "page-desktop": (1280, 960, "light", "astronaut.jpg"),
    "page-dark": (1280, 960, "dark", "astronaut.mp4"),
    "page-phone": (390, 1800, "light", "astronaut.jpg"),
}


def main() -> None:
    """Write all pictures."""
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        for name, (width, height, scheme, file) in PICTURES.items():
            shot = screenshot(browser, url, width, height, scheme, DOCS / file)
            Image.open(io.BytesIO(shot)).convert("RGB").quantize(128).save(
                DOCS / f"{name}.png", optimize=True
            )
        browser.close()


def screenshot(browser: Browser, url: str, width: int, height: int, scheme: Scheme, file: Path) -> bytes:
    """The top of the page with the objects of a file."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(url)
    page.set_input_files("#file0", file)
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#code")).to_contain_text("curl", timeout=120_000)
    expect(page.get_by_role("button", name="Run")).to_be_enabled(timeout=120_000)
    page.evaluate("() => scrollTo(0, 0)")
    shot = page.screenshot()
    page.close()
    return shot


if __name__ == "__main__":
    main()
