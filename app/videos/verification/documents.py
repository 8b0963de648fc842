"""Manifests as they are read long after they were written: every field that is used is checked first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.videos.manifest import PRODUCER
from app.videos.profile import SCHEMA_VERSION

_OLDEST = 1
_HEX = frozenset("0123456789abcdef")


class Refused(Exception):
    """The manifest can't be used; the message says why."""


class NotOurs(Exception):
    """Some other program's `manifest.json`."""


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file that a manifest lists: its name beside the manifest, its length and its SHA-256 in hex.

    `run_id`: the run that made it, where that is not the manifest's own.
    """

    name: str
    nbytes: int
    sha256: str
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One manifest.

    Args:
        video: the id of the video.
        run_id: the id of the run that made the files.
        signature: of the models that made them.
        artifacts: the files that the models' numbers are in.
        derived: the files made of those.
        mapping: component -> its branches, several joined by `+`.
        models: the entries of `models_used`.
    """

    video: str
    run_id: str
    signature: str
    artifacts: tuple[FileRow, ...]
    derived: tuple[FileRow, ...]
    mapping: Mapping[str, str]
    models: tuple[Mapping[str, Any], ...]

    @property
    def files(self) -> tuple[FileRow, ...]:
        """All files that the manifest lists."""
        return (*self.artifacts, *self.derived)

    def artifact(self, name: str) -> FileRow | None:
        """Return the artefact of this name; None if the manifest lists none."""
        return next((row for row in self.artifacts if row.name == name), None)


def parsed(data: bytes) -> Document:
    """Read a manifest of any schema version that this program knows.

    Raises:
        NotOurs: another program wrote the file.
        Refused: it is damaged, or of a version that this program does not read.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise Refused("no JSON: the manifest is damaged") from None
    if not isinstance(document, dict) or document.get("producer") != PRODUCER:
        raise NotOurs
    version = document.get("schema_version")
    if not isinstance(version, int) or not _OLDEST <= version <= SCHEMA_VERSION:
        known = str(_OLDEST) if _OLDEST == SCHEMA_VERSION else f"{_OLDEST} to {SCHEMA_VERSION}"
        raise Refused(
            f"schema version {version!r} is not known: this program reads {known}; "
            f"use the version that wrote it, {document.get('producer_version')!r}"
        )
    return _version_1(document)


def _version_1(document: Mapping[str, Any]) -> Document:
    mapping = _given(document, "resolved_model_mapping", dict)
    if not all(isinstance(value, str) for value in mapping.values()):
        raise Refused("resolved_model_mapping is damaged")
    models = _given(document, "models_used", list)
    if not all(isinstance(entry, dict) and isinstance(entry.get("model_name"), str) for entry in models):
        raise Refused("models_used is damaged")
    return Document(
        _given(document, "video_id", str),
        _given(document, "run_id", str),
        _given(document, "model_signature", str),
        tuple(_rows(_given(document, "artifacts", list), "artifacts")),
        tuple(_rows(document.get("derived", []), "derived")),
        mapping,
        tuple(models),
    )


def _given(document: Mapping[str, Any], key: str, kind: type[Any]) -> Any:
    value = document.get(key)
    if not isinstance(value, kind):
        raise Refused(f"{key} is missing or damaged")
    return value


def _rows(rows: object, key: str) -> list[FileRow]:
    if not isinstance(rows, list):
        raise Refused(f"{key} is damaged")
    return [_row(row, key) for row in rows]


def _row(row: object, key: str) -> FileRow:
    fields = row if isinstance(row, dict) else {}
    name, nbytes, sha256, run_id = (fields.get(field) for field in ("name", "bytes", "sha256", "run_id"))
    if not (isinstance(name, str) and isinstance(nbytes, int) and isinstance(sha256, str)):
        raise Refused(f"a row of {key} is damaged")
    if not (_inside(name) and len(sha256) == 64 and set(sha256) <= _HEX):
        raise Refused(f"a row of {key} is damaged")
    return FileRow(name, nbytes, sha256, run_id if isinstance(run_id, str) else None)


def _inside(name: str) -> bool:
    """Return True for a name of a file in the manifest's own folder or below it."""
    return not any(part in ("", ".", "..") for part in name.split("/"))
