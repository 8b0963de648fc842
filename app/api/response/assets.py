"""Files of the pages that a browser opens: HTML, scripts and styles that lie beside the code."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path

from fastapi import Request, Response

_ALWAYS = {
    "Cache-Control": "no-cache",  # kept, but asked for again: an upgrade never mixes two versions
    "Vary": "Accept-Encoding",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def asset(path: Path, kind: str, request: Request, headers: Mapping[str, str] | None = None) -> Response:
    """Answer a file, or `<file>.gz` beside it, packed where the caller takes that; 304 where the caller has it.

    Raises:
        OSError: it can't be read.
    """
    packed = path.with_name(f"{path.name}.gz")
    stored = (packed if packed.is_file() else path).read_bytes()
    tag = f'W/"{hashlib.sha256(stored).hexdigest()[:32]}"'
    said = {**_ALWAYS, "ETag": tag, **(headers or {})}
    if tag in (word.strip() for word in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=said)
    takes_gzip = "gzip" in request.headers.get("accept-encoding", "")
    if takes_gzip and not kind.startswith("image/"):
        said["Content-Encoding"] = "gzip"
        content = stored if packed.is_file() else gzip.compress(stored, mtime=0)
    else:
        content = gzip.decompress(stored) if packed.is_file() else stored
    return Response(content, media_type=kind, headers=said)
