"""The videos whose rows are in the tables as they are now: it spares reading all manifests at every update.

The parts know themselves which artefacts they hold; where this document is lost, they are compared with the manifests.
"""

from __future__ import annotations

import gzip
import json
import zlib

from app.bulk.layout import TABLES_STATE
from app.videos.stores.base import ArtifactStore

_VERSION = 1


def read_state(store: ArtifactStore) -> dict[str, str]:
    """Return video -> mark of the row that its tables were made after; empty where nothing is known.

    Raises:
        OSError: it can't be read now.
    """
    try:
        with store.open(TABLES_STATE) as file:
            document = json.loads(gzip.decompress(file.read()))
    except (FileNotFoundError, ValueError, EOFError, zlib.error, gzip.BadGzipFile):
        return {}
    known = isinstance(document, dict) and document.get("version") == _VERSION
    videos = document.get("videos") if known else None
    return videos if isinstance(videos, dict) else {}


def write_state(store: ArtifactStore, videos: dict[str, str]) -> None:
    """Write the marks.

    Raises:
        OSError: they can't be written.
    """
    document = json.dumps({"version": _VERSION, "videos": videos}, separators=(",", ":"))
    store.put(TABLES_STATE, gzip.compress(document.encode(), compresslevel=6, mtime=0))
