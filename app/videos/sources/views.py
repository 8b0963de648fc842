"""Words on a source for callers and manifests, without the secrets of its URL."""

from __future__ import annotations

from typing import Any

from app.addresses import without_secrets
from app.state.sources import Source


def source_view(source: Source | None) -> dict[str, Any] | None:
    """Return a source as the caller sees it; None for a video that was sent."""
    if source is None:
        return None
    return {
        "url": without_secrets(source.url), "state": source.state, "bytes": source.bytes, "total": source.total,
        "etag": source.etag, "attempts": source.attempts, "error": source.error,
    }  # fmt: skip


def origin(source: Source | None) -> dict[str, str]:
    """Return what a manifest says of the source of its input."""
    if source is None:
        return {}
    return {"url": without_secrets(source.url), **({} if source.etag is None else {"etag": source.etag})}
