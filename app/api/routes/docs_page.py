"""`GET /docs`: the OpenAPI description as a page, whose scripts and styles come from this gateway."""

from __future__ import annotations

import gzip
import html
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parents[1] / "swagger_ui"
_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "start.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Relative, so that a proxy may serve the gateway under a path.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript; <a href="openapi.json">openapi.json</a> has all that it shows.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""


@router.get("/docs")
async def page(request: Request) -> Response:
    """The page; needs nothing from other hosts."""
    text = _PAGE.format(title=html.escape(request.app.title))
    return Response(text, media_type="text/html", headers={"Content-Security-Policy": _CSP})


@router.get("/docs/{name}")
def asset(name: str, request: Request) -> Response:
    """A script or the style of the page, packed where the caller takes that."""
    kind = _ASSETS.get(name)
    if kind is None:
        raise HTTPException(404, "Not Found")
    headers = {"Cache-Control": "max-age=3600", "Vary": "Accept-Encoding"}
    packed = _FOLDER / f"{name}.gz"
    if not packed.exists():
        return Response((_FOLDER / name).read_bytes(), media_type=kind, headers=headers)
    content = packed.read_bytes()
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
    else:
        content = gzip.decompress(content)
    return Response(content, media_type=kind, headers=headers)
