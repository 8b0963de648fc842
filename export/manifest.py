"""The repository's records of its models: `weights.json` beside each model.onnx, and one manifest of them all.

No time stamps and no absolute paths: the same weights and tools give the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from export import sharing
from export.artifacts import MODEL_FILE, digest, link, sha256, write_atomic, write_if_changed
from export.memory import estimate
from routing.catalogue import Precision
from routing.memory import ModelMemory, from_json
from routing.versions import FIRST, served_folder

SCHEMA_VERSION = 1
WEIGHTS_FILE = "weights.json"
LABELS_FILE = "labels.txt"
VERSION_FOLDER = FIRST

WeightsKind = Literal["pretrained", "checkpoint", "random", "none"]


@dataclass(frozen=True, slots=True)
class Source:
    """Source of weights: the name of a file with its SHA-256, or of a seed, which has none."""

    name: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """All that decides a model's bytes; equal provenance means that there is nothing to build."""

    weights: WeightsKind
    source: Source
    exporter: Mapping[str, str | int]
    precision: Precision = "fp32"


@dataclass(frozen=True, slots=True)
class Record:
    """One `weights.json`, read."""

    model: str
    digest: str
    files: Mapping[str, str]
    provenance: Provenance
    memory: ModelMemory | None = None


def publish(
    model: str,
    optimized: Path,
    repository: Path,
    provenance: Provenance,
    labels: Sequence[str] = (),
    shared: Sequence[str] = (),
) -> Record:
    """Serve `optimized` as the version of `model` that serves, the first one if there is none, and say beside it what
    it is.

    `shared` are the files beside it in which it looks for weights.

    The order of the steps is the point: an old weights.json goes first and the new one comes last, so a model
    never stands under a digest that isn't its own, wherever this is interrupted.
    """
    folder = served_folder(repository / model)
    (folder / WEIGHTS_FILE).unlink(missing_ok=True)
    if labels:
        write_if_changed(folder / LABELS_FILE, "".join(f"{label}\n" for label in labels).encode())
    for name in shared:
        link(optimized.with_name(name), folder / name)
    link(optimized, folder / MODEL_FILE)
    sharing.prune(folder, set(shared))
    files = {name: f"sha256:{sha256(folder / name)}" for name in (MODEL_FILE, *shared)}
    record = Record(model, digest(_bare(files)), files, provenance, estimated(folder / MODEL_FILE))
    write_atomic(folder / WEIGHTS_FILE, to_json(_document(record, labels)))
    return record


def note_memory(model: str, repository: Path) -> None:
    """Add the estimate of memory to the note of a model that was published without one."""
    folder = served_folder(repository / model)
    memory = estimated(folder / MODEL_FILE)
    if memory is not None:
        document = json.loads((folder / WEIGHTS_FILE).read_bytes())
        write_atomic(folder / WEIGHTS_FILE, to_json({**document, "memory": memory.to_json()}))


def estimated(path: Path) -> ModelMemory | None:
    """The estimate of a model's memory; None for a graph that can't be estimated, which serves all the same."""
    try:
        return estimate.of_file(path)
    except Exception:  # noqa: BLE001  # whatever can't be read or counted: nothing depends on it
        return None


def publish_graph(
    model: str, graph: bytes, repository: Path, provenance: Provenance, labels: Sequence[str] = ()
) -> Record:
    """`publish` what is in memory, and holds its own weights."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / MODEL_FILE
        optimized.write_bytes(graph)
        return publish(model, optimized, repository, provenance, labels)


def read(model: str, repository: Path) -> Record | None:
    """The model's record, or None when there is none, it can't be read, or the files aren't those it names."""
    folder = served_folder(repository / model)
    try:
        record = _parse(json.loads((folder / WEIGHTS_FILE).read_bytes()))
        there = {name: f"sha256:{sha256(folder / name)}" for name in record.files}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = record.model == model and there == dict(record.files) and record.digest == digest(_bare(there))
    return record if whole else None


def write_manifest(repository: Path, path: Path) -> None:
    """Gather every weights.json under `repository` into one file, for gateways that can't see the models."""
    models = {}
    for folder in sorted(path for path in repository.glob("*") if path.is_dir()):
        file = served_folder(folder) / WEIGHTS_FILE
        if not file.is_file():
            continue
        with contextlib.suppress(
            ValueError, KeyError, TypeError
        ):  # what can't be read has no digest to claim
            document = json.loads(file.read_bytes())
            models[document["model"]] = {key: value for key, value in document.items() if key != "files"}
            if file.parent.name != FIRST:
                models[document["model"]]["version"] = file.parent.name
    write_if_changed(path, to_json({"schema_version": SCHEMA_VERSION, "models": models}))


def _document(record: Record, labels: Sequence[str]) -> dict[str, Any]:
    document = {
        "schema_version": SCHEMA_VERSION,
        "model": record.model,
        "digest": record.digest,
        "files": dict(record.files),
        "weights": record.provenance.weights,
        "source": asdict(record.provenance.source),
        "engine": "onnx",
        "precision": record.provenance.precision,
        "exporter": dict(record.provenance.exporter),
    }
    if record.memory is not None:
        document["memory"] = record.memory.to_json()
    return {**document, "labels": list(labels)} if labels else document


def _parse(document: Mapping[str, Any]) -> Record:
    if document["schema_version"] != SCHEMA_VERSION or document["weights"] not in get_args(WeightsKind):
        raise ValueError("not a weights.json of this version")
    source, exporter = Source(**document["source"]), dict(document["exporter"])
    provenance = Provenance(document["weights"], source, exporter, document.get("precision", "fp32"))
    memory = from_json(document.get("memory"))
    return Record(document["model"], document["digest"], dict(document["files"]), provenance, memory)


def _bare(files: Mapping[str, str]) -> dict[str, str]:
    return {name: value.removeprefix("sha256:") for name, value in files.items()}


def to_json(document: Mapping[str, Any]) -> bytes:
    """Return a note or a manifest as it is written."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
