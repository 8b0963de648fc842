"""YOLO11 networks in torch: from a checkpoint, or random yet alive."""

from __future__ import annotations

import atexit
import functools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from export.errors import ExportError
from export.weights import SEED, Weights

CLASSES = 80
_THREADS = 2  # everywhere the same: how sums are split decides the last bits of settled weights
_SETTLE_SIDE = 320
# The gain of BatchNorm in random networks. With gains near 1 such a network is chaotic: rounding grows from layer to
# layer until two runtimes disagree by hundreds of pixels (seen: 400 px at x@640). At 0.1, all fifteen agree to
# 0.003 px, as trained ones do; at 0.05 the signal dies.
_DAMPED = 0.1
_BOX_CENTRE, _CLASS_CENTRE = 0.0, -9.0


@dataclass(frozen=True, slots=True)
class Network:
    """A fused YOLO11 in export mode, and the names of its classes (none when it is random)."""

    module: Any
    labels: tuple[str, ...]


@functools.lru_cache(maxsize=1)  # the sizes of a variant come one after the other
def load(variant: str, weights: Weights) -> Network:
    """The network of a variant, ready to be traced.

    Raises:
        ExportError: the file holds no YOLO11 detector of this variant with 80 classes.
    """
    torch.set_num_threads(_THREADS)
    module = _random(variant) if weights.path is None else _checkpoint(variant, weights.path)
    labels = () if weights.path is None else tuple(str(module.names[i]) for i in range(CLASSES))
    module = module.float().eval().fuse(verbose=False).requires_grad_(False)
    module.model[
        -1
    ].export = True  # the head answers one decoded tensor: centre, width and height, class scores
    return Network(module, labels)


@functools.cache
def ultralytics() -> SimpleNamespace:
    """The few names of Ultralytics that export needs, imported so that it asks no network and installs nothing."""
    folder = tempfile.TemporaryDirectory(prefix="gateway-export-")
    atexit.register(folder.cleanup)
    os.environ.update(
        YOLO_OFFLINE="1",
        YOLO_AUTOINSTALL="0",
        YOLO_CONFIG_DIR=folder.name,
        YOLO_VERBOSE="false",
        ULTRALYTICS_SAFE_LOAD="1",  # a checkpoint is a pickle: only the classes of networks are let in
    )
    from ultralytics.data.augment import LetterBox  # noqa: PLC0415 (reads the environment when it is imported)
    from ultralytics.nn.tasks import DetectionModel, load_checkpoint  # noqa: PLC0415 (ditto)
    from ultralytics.utils import ASSETS  # noqa: PLC0415 (ditto)

    return SimpleNamespace(
        ASSETS=ASSETS, DetectionModel=DetectionModel, LetterBox=LetterBox, load_checkpoint=load_checkpoint
    )


def _checkpoint(variant: str, path: Path) -> Any:
    try:
        module, _ = ultralytics().load_checkpoint(path)
    except Exception as error:  # whatever unpickling raises is told the same way
        raise ExportError(f"{path} is no checkpoint that Ultralytics can read: {error}") from error
    head = module.model[-1]
    if type(head).__name__ != "Detect" or head.end2end:
        raise ExportError(
            f"{path} ends in a {type(head).__name__} head; yolo11{variant} needs a plain Detect"
        )
    if head.nc != CLASSES:
        raise ExportError(f"{path} knows {head.nc} classes; the contract [1, 84, anchors] needs {CLASSES}")
    if _shapes(module) != _shapes(_architecture(variant)):
        raise ExportError(f"{path} holds another network than yolo11{variant}")
    return module


def _shapes(module: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.named_parameters()}


def _architecture(variant: str) -> Any:
    return ultralytics().DetectionModel(f"yolo11{variant}.yaml", nc=CLASSES, verbose=False)


def _random(variant: str) -> Any:
    """A network with random weights whose answer does depend on its input.

    Left as initialised, the signal dies in BatchNorm layers that never saw data, and every comparison of two
    runtimes would succeed on constants.
    """
    torch.manual_seed(SEED)
    module = _architecture(variant)
    batches = [_clouds(), _clouds()]
    with torch.no_grad():
        module.train()
        for norm in (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.reset_running_stats()
            norm.momentum = None  # the statistics are the plain mean over the batches
            norm.weight.fill_(_DAMPED)
        for batch in batches:
            module(batch)
        module.eval()
        _rescale(module, batches[0])
    return module


def _clouds() -> torch.Tensor:
    """Noise with the contrast of a picture and, like one, coarse structures stronger than fine ones."""
    sides = [_SETTLE_SIDE >> halvings for halvings in range(8)]
    octaves = [torch.randn(2, 3, side, side) / side**0.5 for side in sides]
    total: torch.Tensor = sum(
        torch.nn.functional.interpolate(octave, _SETTLE_SIDE, mode="bilinear") for octave in octaves
    )
    return (0.45 + 0.28 * total / total.std()).clamp(0, 1)


def _rescale(module: Any, batch: torch.Tensor) -> None:
    """Give the logits of every level of the head a spread of one around a centre: few classes pass 0.25."""
    head = module.model[-1]
    _, raw = module(batch)
    ends = np.cumsum([(_SETTLE_SIDE // int(stride)) ** 2 for stride in head.stride])[:-1].tolist()
    for sequences, logits, centre in (
        (head.cv2, raw["boxes"], _BOX_CENTRE),
        (head.cv3, raw["scores"], _CLASS_CENTRE),
    ):
        for sequence, level in zip(sequences, logits.tensor_split(ends, dim=2), strict=True):
            last, spread, mean = sequence[-1], level.std(dim=(0, 2)).mean(), level.mean(dim=(0, 2))
            last.weight /= spread
            last.bias.copy_((last.bias - mean) / spread + centre)
