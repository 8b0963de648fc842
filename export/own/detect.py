"""A detector of one's own: an Ultralytics checkpoint of any class count, or an ONNX file."""

from __future__ import annotations

from pathlib import Path

import onnx

from export import yolo11
from export.artifacts import sha256
from export.errors import ExportError
from export.exporters import EXPORTERS
from export.manifest import Provenance, Source
from export.own import onnx_detector
from export.own.request import Plan, Request, Variant
from export.weights import Weights
from routing.catalogue import Branch

USUAL_SIZE = 640
REVISION = 1
_HEADS = {"Segment": "segment", "Pose": "pose", "OBB": "obb", "Classify": "classify"}


def plan(request: Request, labels: tuple[str, ...] | None) -> Plan:
    """See `Plan`; `labels` are the caller's own class names.

    Raises:
        ExportError: the file is no detector, or the names aren't as many as its classes.
    """
    path = request.weights
    if not path.is_file():
        raise ExportError(f"{path}: there is no such file")
    with path.open("rb") as file:
        head = file.read(2)
    return _checkpoint(request, labels) if head == b"PK" or path.suffix == ".pt" else _onnx(request, labels)


def _checkpoint(request: Request, labels: tuple[str, ...] | None) -> Plan:
    weights = Weights("checkpoint", Source(request.weights.name, sha256(request.weights)), request.weights)
    try:
        loaded = yolo11.load(request.name, weights, own=True)
    except ExportError as error:
        raise ExportError(f"{error}{_hint(str(error))}") from error

    def make(branch: Branch) -> bytes:
        return yolo11.export(branch, weights)[0]

    names = _names(request.weights, labels, loaded.labels, len(loaded.labels))
    variants = [Variant("detect", _branches(request, request.sizes or (USUAL_SIZE,)), {}, names)]
    return Plan(variants, make, EXPORTERS["detect"].provenance(weights), shared=True)


def _hint(error: str) -> str:
    """Return advice for a checkpoint of another network than YOLO11."""
    for head, task in _HEADS.items():
        if f".head.{head}" in error or f"tasks.{head}" in error or f"a {head} head" in error:
            return f"\nhint: it was trained for the task {task}; the family detect takes detectors"
    if "ultralytics.nn" in error or "can't be exported" in error:
        return (
            "\nhint: of checkpoints only YOLO11 detectors can be built; export another network to ONNX where it was "
            "trained (yolo export model=best.pt format=onnx), and add that file"
        )
    return ""


def _onnx(request: Request, labels: tuple[str, ...] | None) -> Plan:
    path = request.weights
    detector = onnx_detector.read(path)
    sizes = request.sizes or (detector.side or USUAL_SIZE,)
    if detector.side is not None and sizes != (detector.side,):
        raise ExportError(f"{path}: it is fixed to {detector.side} pixels: --sizes {detector.side}")
    _check_sizes(sizes)
    count = onnx_detector.classes(detector, min(sizes))
    names = _names(path, labels, detector.labels, count)
    source = Source(path.name, sha256(path))
    provenance = Provenance("checkpoint", source, {"onnx": onnx.__version__, "fixed": REVISION})

    def make(branch: Branch) -> bytes:
        return onnx_detector.fixed(detector, branch.models[-1])

    return Plan([Variant("detect", _branches(request, sizes), {}, names)], make, provenance)


def _names(
    path: Path, given: tuple[str, ...] | None, found: tuple[str, ...], classes: int
) -> tuple[str, ...]:
    """The class names: the caller's, else the file's."""
    names = given if given is not None else found
    if not names:
        raise ExportError(
            f"{path} contains no names of its {classes} classes: give --labels FILE, one name per line"
        )
    if len(names) != classes:
        whose = "--labels" if given is not None else str(path)
        raise ExportError(f"{whose} names {len(names)} classes, but {path} has {classes}")
    return names


def _check_sizes(sizes: tuple[int, ...]) -> None:
    for size in sizes:
        if size % 32 or not 32 <= size <= 4096:
            raise ExportError(f"--sizes: {size} is no multiple of 32 from 32 to 4096")


def _branches(request: Request, sizes: tuple[int, ...]) -> list[dict[str, object]]:
    _check_sizes(sizes)
    return [{"name": f"{request.name}_{size}", "size": size} for size in sorted(set(sizes))]
