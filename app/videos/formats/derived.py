"""Makes the files of formats beside the artefacts, and lists them in the manifest under `derived`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from app.videos import manifest as manifests
from app.videos.formats.base import Finished, Format
from app.videos.formats.coco import CocoFormat
from app.videos.formats.parquet import ParquetFormat
from app.videos.formats.pictures import AnnotatedVideo, ContactSheet

FORMATS = MappingProxyType(
    {kind.name: kind() for kind in (ParquetFormat, CocoFormat, AnnotatedVideo, ContactSheet)}
)
"""THE table of formats beside npz, by their names on the command line."""


def make_missing(finished: Finished, formats: Sequence[Format]) -> list[str]:
    """Make what is not there yet; return the names of the files that were made.

    Raises:
        OSError: one can't be written; what was made before is in the manifest.
        GatewayError: the video can't be read.
    """
    made: list[str] = []
    for form in formats:
        if not _there(finished, form):
            finished.check()
            form.make(finished)
            names = form.files(finished)
            finished = replace(finished, manifest=_listed(finished, form, names))
            made += names
    return made


def _there(finished: Finished, form: Format) -> bool:
    """Return True if the manifest lists every file of a format, and all exist in their full length."""
    listed = {
        row["name"]: row for row in finished.manifest.get("derived", ()) if row["version"] == form.version
    }
    rows = [listed.get(name) for name in form.files(finished)]
    try:
        return all(row is not None and finished.output.size(row["name"]) == row["bytes"] for row in rows)
    except OSError:
        return False


def _listed(finished: Finished, form: Format, names: Sequence[str]) -> dict[str, Any]:
    """Add the files of a format to the manifest."""
    fresh = [
        {"format": form.name, "version": form.version, **manifests.file_row(finished.output, name)}
        for name in names
    ]
    others = [row for row in finished.manifest.get("derived", ()) if row["format"] != form.name]
    manifest = {**finished.manifest, "derived": [*others, *fresh]}
    manifests.save(finished.output, manifest)
    return manifest
