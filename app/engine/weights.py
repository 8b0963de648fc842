"""The exporter's record of a model's weights: `weights.json` beside the model, or the manifest."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.engine.base import Weights
from routing.memory import from_json
from routing.provenance import UNKNOWN
from routing.versions import FIRST, served_folder

NOTE = "weights.json"
_NOT_WEIGHTS = {NOTE, "labels.txt"}
_MOST_BYTES = 64 * 2**20  # of a note or a manifest; more is no such thing
_CHUNK = 2**20


class WeightsBook:
    """Looks weights up by model name; a file is read again when it has changed.

    Args:
        repository: the Triton model repository, if this process can see its files.
        manifest: `models/manifest.json`, for a gateway that can't.
    """

    def __init__(self, repository: Path | None, manifest: Path | None) -> None:
        self.repository = repository
        self._manifest = manifest
        self._read: dict[Path, tuple[tuple[int, int, int], Mapping[str, Any]]] = {}

    def lookup(self, model: str, version: str | None = None) -> Weights:
        """Return the record of a version; every field is `unknown` if there is none.

        Without a `version`, the one that serves is meant. The manifest knows one version of each model.
        """
        return self.note(model, version or self._served(model))[0]

    def _served(self, model: str) -> str:
        return FIRST if self.repository is None else served_folder(self.repository / model).name

    def note(self, model: str, version: str) -> tuple[Weights, int | None]:
        """`lookup`, and when weights.json was written (ns); None: what is known isn't from there."""
        if self.repository is not None:
            document, written = self._load(self.repository / model / version / NOTE)
            if document:
                return _weights(document), written
        document = {}
        if self._manifest is not None:
            document = _mapping(_mapping(self._load(self._manifest)[0].get("models")).get(model))
        same = version == (_text(document, "version") or FIRST)
        return _weights(document if same else {}), None

    def verified(self, folder: Path, model: str, digest: str | None = None) -> Weights:
        """Like `lookup`, for files that are about to be loaded; all `unknown` unless the files have the recorded
        digest.

        So a model has one signature, in whatever order its files and weights.json appear. `digest` is that of the
        files, where it is known.
        """
        written = self.lookup(model, folder.name)
        return written if written.digest == (digest or files_digest(folder)) else Weights()

    def _load(self, path: Path) -> tuple[Mapping[str, Any], int]:
        """A JSON file and its time of writing (ns); only regular files are opened, so none is waited for."""
        try:
            found = path.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            known = self._read.get(path)
            if known is None or known[0] != stamp:
                known = (stamp, _mapping(json.loads(_text_of(path))))
                self._read[path] = known
            return known[1], found.st_mtime_ns
        except (OSError, ValueError, RecursionError):
            return {}, 0


def files_digest(
    folder: Path, beat: Callable[[], None] = lambda: None, known: dict[tuple[int, ...], str] | None = None
) -> str:
    """`sha256:<hex>` of the model's files in a version folder.

    Of the file itself when there is one; of the sorted lines `<hex>  <name>` when there are several (external data).

    Args:
        folder: of the version.
        beat: called after each piece that is read.
        known: digests of files that were read before, by device, inode, times of the last changes, and size; those
            read now are added. Models of one architecture have a file in common, by hard links.

    Raises:
        OSError: a file can't be read.
    """
    known = {} if known is None else known
    files = sorted(p for p in folder.iterdir() if p.is_file() and not is_note(p.name))
    hashes = [(_known_sha256(path, beat, known), path.name) for path in files]
    if len(hashes) == 1:
        return f"sha256:{hashes[0][0]}"
    lines = "".join(sorted(f"{digest}  {name}\n" for digest, name in hashes))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def is_note(name: str) -> bool:
    """Tell if a file of a version folder holds no weights."""
    return name in _NOT_WEIGHTS or name.startswith(".")


def _text_of(path: Path) -> str:
    """The text of a regular file; a FIFO would block whoever opens it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
            raise ValueError("no regular file of a reasonable size")
        return file.read().decode("utf-8")


def _known_sha256(path: Path, beat: Callable[[], None], known: dict[tuple[int, ...], str]) -> str:
    seen = path.stat()
    stamp = (seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size)
    if stamp not in known:
        known[stamp] = _sha256(path, beat)
    return known[stamp]


def _sha256(path: Path, beat: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            beat()
    return digest.hexdigest()


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _weights(document: Mapping[str, Any]) -> Weights:
    labels = document.get("labels")
    return Weights(
        digest=_text(document, "digest") or UNKNOWN,
        kind=_text(document, "weights") or UNKNOWN,
        precision=_text(document, "precision") or "fp32",
        engine=_text(document, "engine") or "onnx",
        source=_text(_mapping(document.get("source")), "name"),
        labels=tuple(str(label) for label in labels) if isinstance(labels, list) else (),
        memory=from_json(document.get("memory")),
    )


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) else None
