"""Models of two Tritons: one branch with the same weights on both, and one whose answers tell the weights."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from support.models import repository

SAME = "yolo11n_320"
OTHER = "yolo11n_640"
COLOUR = 1  # the class of the patch that callers send


@dataclass(frozen=True, slots=True)
class Models:
    """Repositories of a cluster.

    Args:
        tritons: one repository per Triton. `OTHER` has another version and other weights in each.
        truth: for `OTHER` the version and digest that answer with a class, by class.
        same_digest: that of `SAME`.
    """

    tritons: tuple[Path, ...]
    truth: Mapping[int, tuple[str, str]]
    same_digest: str


def build(folder: Path, count: int) -> Models:
    """Write the repositories of `count` Tritons (1 to 3)."""
    plain = repository.build(folder / "models", [SAME, OTHER])
    tritons, truth = [], {}
    graph = (plain / OTHER / "1" / "model.onnx").read_bytes()
    for number in range(count):
        version = str(number + 1)
        content = _shifted(graph, number)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        models = folder / f"models-{version}"
        shutil.copytree(plain, models)
        shutil.rmtree(models / OTHER)
        shutil.copytree(
            plain / OTHER, models / OTHER, ignore=lambda _, names: [n for n in names if n.isdigit()]
        )
        target = models / OTHER / version
        target.mkdir()
        (target / "model.onnx").write_bytes(content)
        (target / "weights.json").write_text(json.dumps({"digest": digest, "weights": "random"}))
        tritons.append(models)
        truth[(COLOUR + number) % 3] = (version, digest)
    note = json.loads((plain / SAME / "1" / "weights.json").read_text(encoding="utf-8"))
    return Models(tuple(tritons), truth, note["digest"])


def _shifted(graph: bytes, shift: int) -> bytes:
    """The detector's graph, which calls every colour by a class `shift` higher (of three, then nothing)."""
    model = onnx.load_from_string(graph)
    for constant in model.graph.initializer:
        if constant.name.startswith("excess"):
            whole = numpy_helper.to_array(constant).copy()
            whole[:3] = np.roll(whole[:3], shift, axis=0)
            constant.CopyFrom(numpy_helper.from_array(whole, constant.name))
    content: bytes = model.SerializeToString(deterministic=True)
    return content
