"""`GET /docs`: the OpenAPI description as a page, whose scripts and styles come from this gateway."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from app.api.response.assets import asset

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parents[1] / "swagger_ui"
_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "start.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
_CSP = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}


@router.get("/docs")
def page(request: Request) -> Response:
    """The page; needs nothing from other hosts, and its addresses are relative."""
    return asset(_FOLDER / "index.html", "text/html", request, _CSP)


@router.get("/docs/{name}")
def file(name: str, request: Request) -> Response:
    """A script or the style of the page."""
    kind = _ASSETS.get(name)
    if kind is None:
        raise HTTPException(404, "Not Found")
    return asset(_FOLDER / name, kind, request)
