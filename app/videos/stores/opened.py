"""The store that a URL names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from app import extras
from app.videos.stores.base import ArtifactStore, StoreUnusable
from app.videos.stores.folder import FolderStore

if TYPE_CHECKING:
    from app.videos.stores.remote import BucketStore

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")


def is_remote(url: str) -> bool:
    """Return True for what lies in a bucket, and False for paths and `file://` URLs."""
    scheme, _ = _split(url)
    return scheme not in ("", "file")


def local_path(url: str) -> Path:
    """Return the path that a path or a `file://` URL names.

    Raises:
        StoreUnusable: the URL is empty, or names a place elsewhere.
    """
    scheme, rest = _split(url)
    if not url:
        raise StoreUnusable("an empty name is no store: name a folder or s3://bucket/prefix")
    if not scheme:
        return Path(url)
    if scheme != "file" or not rest.startswith("/"):
        raise StoreUnusable("a file URL has three slashes: file:///folder")
    return Path(unquote(rest, errors="surrogateescape"))


def open_store(url: str) -> ArtifactStore:
    """Return the store at `s3://bucket/prefix`, `file:///folder`, or a path. Nothing is read or written for that.

    Raises:
        StoreUnusable: the URL names no store, or the extra `bulk` is missing.
    """
    if not is_remote(url):
        return FolderStore(local_path(url))
    bucket, prefix = bucket_and_key(url)
    return open_bucket(bucket, prefix.strip("/"))


def open_bucket(bucket: str, prefix: str = "") -> BucketStore:
    """Return the store of a bucket, or of a prefix in it.

    Raises:
        StoreUnusable: the extra `bulk` is missing.
    """
    lacking = extras.missing("bulk")
    if lacking is not None:
        raise StoreUnusable(lacking)
    from app.videos.stores.remote import BucketStore, file_system  # noqa: PLC0415  # an extra: bulk

    return BucketStore(file_system(), bucket, prefix)


def bucket_and_key(url: str) -> tuple[str, str]:
    """Return the bucket and the key of an `s3://` URL, as it stands: nothing is decoded.

    Raises:
        StoreUnusable: it is none. The words don't repeat it, since it may hold a password.
    """
    scheme, rest = _split(url)
    if scheme != "s3":
        raise StoreUnusable(f"{scheme}:// is not supported: name a folder or s3://bucket/prefix")
    bucket, _, key = rest.partition("/")
    if "@" in bucket or ":" in bucket:
        raise StoreUnusable(
            "credentials don't belong in a URL: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if not _BUCKET.fullmatch(bucket):
        raise StoreUnusable("the URL has no bucket: s3://bucket/prefix")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise StoreUnusable("a key in a bucket is UTF-8 text") from None
    return bucket, key


def _split(url: str) -> tuple[str, str]:
    """Return the scheme in lower case, empty for a path, and what follows it."""
    found = _SCHEME.fullmatch(url)
    return (found[1].lower(), found[2]) if found else ("", url)
