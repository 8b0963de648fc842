"""`GET /`: a page to try the gateway with a picture, a pair, a video or prompts (docs/page.md)."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from app.api.response.assets import asset

_FOLDER = Path(__file__).parents[1] / "page"
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_ASSETS = {path.name: _KINDS[path.suffix] for path in _FOLDER.iterdir() if path.suffix in _KINDS}
# `blob:` is a file that the visitor chose. No script of the page turns text into HTML, and Chromium holds it to that.
_CSP = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
}


def routes(example: Path) -> APIRouter:
    """The page and its files.

    Args:
        example: the JPEG that the page offers to who has no picture at hand.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def page(request: Request) -> Response:
        """The page; all its addresses are relative, so that a proxy may serve the gateway under a path."""
        return asset(_FOLDER / "index.html", "text/html", request, _CSP)

    @router.get("/page/{name}")
    def file(name: str, request: Request) -> Response:
        """A script, the style or a picture of the page."""
        if name == "example.jpg" and example.is_file():
            return asset(example, "image/jpeg", request)
        kind = _ASSETS.get(name)
        if kind is None:
            raise HTTPException(404, "Not Found")
        return asset(_FOLDER / name, kind, request)

    return router
