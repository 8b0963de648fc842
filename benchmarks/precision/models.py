"""Run a branch's model with weights on prepared pixels, with ONNX Runtime on this CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from app.media.fit import letterbox_into
from app.media.resize import square_into
from app.media.resizers.choice import resizer_named
from app.vision.letterbox import Letterbox
from routing.catalogue import Branch

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Pixels = NDArray[np.uint8]


def session(model: bytes | Path, *, optimised: bool = True) -> ort.InferenceSession:
    """A session on the CPU; without optimisation, every node is computed as it stands."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def graph(repository: Path, model: str) -> Path:
    return repository / model / "1" / "model.onnx"


@dataclass(frozen=True)
class Inputs:
    """Makes the inputs of a branch's model with weights."""

    repository: Path
    branch: Branch

    def of(self, frames: Sequence[Pixels]) -> Feeds:
        """Prepare RGB frames `[height, width, 3]`: one, or two of a pair."""
        branch, last = self.branch, self.branch.models[-1]
        if branch.preprocess_model is None:
            return {last.inputs[0].name: letterboxed(frames[0], branch)}
        spec = next(model for model in branch.models if model.kind == "preprocess")
        feeds = {t.name: self._square(frame) for t, frame in zip(spec.inputs, frames, strict=True)}
        prepared = session(graph(self.repository, spec.name)).run(None, feeds)
        return {tensor.name: array for tensor, array in zip(last.inputs, prepared, strict=True)}

    def _square(self, frame: Pixels) -> Pixels:
        prepare, size = self.branch.prepare, self.branch.size
        assert prepare is not None
        assert size is not None
        assert prepare.fit != "letterbox"
        target = np.empty((1, size, size, 3), np.uint8)
        way = (prepare.fit, prepare.interpolation, prepare.crop_ratio)
        square_into(resizer_named("auto"), frame, target[0], *way)
        return target


def letterboxed(frame: Pixels, branch: Branch) -> Array:
    """FP32 `[1, 3, size, size]`."""
    size = branch.size or 0
    images = np.empty((1, 3, size, size), np.float32)
    letterbox_into(frame, placed(frame, branch), images, {})
    return images


def placed(frame: Pixels, branch: Branch) -> Letterbox:
    return Letterbox.fit(frame.shape[1], frame.shape[0], branch.size or 0)
