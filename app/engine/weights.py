"""What the exporter wrote down about a model's weights: `weights.json` beside the model, or the manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.engine.base import Weights
from routing.provenance import UNKNOWN

_NOT_WEIGHTS = {"weights.json", "labels.txt"}


class WeightsBook:
    """Looks weights up by model name; a file is read again when it has changed.

    Args:
        repository: the Triton model repository, if this process can see its files.
        manifest: `models/manifest.json`, for a gateway that can't.
    """

    def __init__(self, repository: Path | None, manifest: Path | None) -> None:
        self._repository = repository
        self._manifest = manifest
        self._read: dict[Path, tuple[tuple[int, int], Mapping[str, Any]]] = {}

    def lookup(self, model: str, version: str = "1") -> Weights:
        """What is written down of a version; every field `unknown` where nothing is.

        The manifest knows the version that the exporter makes, 1.
        """
        document: Mapping[str, Any] = {}
        if self._repository is not None:
            document = self._load(self._repository / model / version / "weights.json")
        if not document and self._manifest is not None and version == "1":
            document = _mapping(_mapping(self._load(self._manifest).get("models")).get(model))
        return _weights(document)

    def verified(self, folder: Path, model: str) -> Weights:
        """As `lookup`, for files that are about to be loaded: the digest is computed from them.

        Where it is not the one written down, only the digest is known.
        """
        actual = files_digest(folder)
        written = self.lookup(model)
        return written if written.digest == actual else Weights(digest=actual)

    def _load(self, path: Path) -> Mapping[str, Any]:
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            known = self._read.get(path)
            if known is None or known[0] != stamp:
                known = (stamp, _mapping(json.loads(path.read_text(encoding="utf-8"))))
                self._read[path] = known
            return known[1]
        except (OSError, ValueError, RecursionError):
            return {}


def files_digest(folder: Path) -> str:
    """`sha256:<hex>` of the model's files in a version folder.

    Of the file itself when there is one; of the sorted lines `<hex>  <name>` when there are several (external data).

    Raises:
        OSError: a file can't be read.
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and not _ignored(p.name))
    hashes = [(_sha256(path), path.name) for path in files]
    if len(hashes) == 1:
        return f"sha256:{hashes[0][0]}"
    lines = "".join(sorted(f"{digest}  {name}\n" for digest, name in hashes))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def _ignored(name: str) -> bool:
    return name in _NOT_WEIGHTS or name.startswith(".")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    )


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) else None
