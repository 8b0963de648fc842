"""ResNet50 of Places365 to ONNX: logits over 365 scenes, one fixed size a graph."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import Bottleneck

from export.errors import ExportError
from export.exporters import EXPORTERS
from export.families import tracing
from export.weights import SEED, Weights
from routing.catalogue import Branch

OPSET = EXPORTERS["places"].opset
CLASSES = 365
LABELS_FILE = str(EXPORTERS["places"].labels)
# Torch against ONNX Runtime, of the largest logit. Measured: 2e-6.
TOLERANCE = 1e-4
_SETTLE_SIDE = 224
_RANDOM_SPREAD = 3.0  # of logits; a trained network's are about as far apart
_RANDOM_RESIDUAL = 0.1  # gain of each block's last BatchNorm: with 1, rounding grows from block to block
_RANDOM_SCENES = 8


@dataclass(frozen=True, slots=True)
class Network:
    """ResNet50 in evaluation mode.

    `fused` is the same with BatchNorm folded here, not by the exporter: what it traces are then parameters, which
    the sizes share.
    """

    module: Any
    fused: Any


def export(branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]:
    """The ONNX graph of one branch, and the class names that lie beside its weights.

    The graph is shown to have the catalogue's contract and to compute what torch computes.

    Raises:
        ExportError: it hasn't, or it doesn't; or the weights aren't those of a ResNet50 with 365 classes, or the
            labels beside them aren't 365.
    """
    named = weights.path is not None and not branch.own
    labels = read_labels(weights.path.with_name(LABELS_FILE)) if named and weights.path is not None else ()
    network = load(weights, len(branch.labels))
    spec = branch.models[-1]
    side = spec.inputs[0].shape[-1]
    feeds = [[tracing.scene(side, seed)] for seed in (1, 2)]
    expected = tracing.answers(network.module, feeds)
    content = tracing.trace(network.fused, feeds[0], spec, OPSET)
    tracing.check_parity(spec.name, expected, tracing.run(content, spec, feeds), TOLERANCE)
    return content, labels


@functools.lru_cache(maxsize=1)  # the sizes come one after the other
def load(weights: Weights, classes: int = CLASSES) -> Network:
    """The network.

    Raises:
        ExportError: the file holds no ResNet50 with so many classes.
    """
    tracing.settle_threads()
    module = _random() if weights.path is None else _checkpoint(weights.path, classes)
    module = module.float().eval().requires_grad_(False)
    return Network(module, _fused(module))


def read_labels(path: Path) -> tuple[str, ...]:
    """The names in a `categories_places365.txt` (lines like `/a/airfield 0`), by number; () where it isn't there.

    Raises:
        ExportError: it can't be read, has a line of another form, or doesn't number 365 names from 0.
    """
    if not path.is_file():
        return ()
    names: dict[int, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} can't be read: {error}") from error
    for line in lines:
        match = re.fullmatch(r"/\w/(\S+) (\d+)", line.strip())
        if match is None:
            raise ExportError(f"{path}: {line!r} isn't of the form '/a/airfield 0'")
        names[int(match[2])] = match[1]
    if len(lines) != CLASSES or sorted(names) != list(range(CLASSES)):
        raise ExportError(f"{path} names {len(lines)} classes; it must number {CLASSES} from 0, each once")
    return tuple(names[number] for number in range(CLASSES))


def _random() -> Any:
    """Seeded weights whose logits do depend on the input.

    The BatchNorm layers get the statistics of made-up scenes; left as initialised, they let the signal die. What all
    scenes' logits have in common is taken away, lest every picture have the same five best classes.
    """
    torch.manual_seed(SEED)
    module = _architecture()
    batch = _scenes()
    with torch.no_grad():
        module.train()
        for block in (m for m in module.modules() if isinstance(m, Bottleneck)):
            block.bn3.weight.fill_(_RANDOM_RESIDUAL)
        for norm in (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.momentum = None  # the statistics are those of the batch
        module(batch)
        module.eval()
        logits = module(batch)
        gain = _RANDOM_SPREAD / (logits - logits.mean(0)).std()
        module.fc.weight *= gain
        module.fc.bias.copy_((module.fc.bias - logits.mean(0)) * gain)
    return module


def _scenes() -> Any:
    """Normalised scenes `[n, 3, side, side]` of light and dark, of strong and weak contrast."""
    generator = np.random.default_rng(SEED)
    contrast = generator.uniform(1, 5, (_RANDOM_SCENES, 1, 1, 1)).astype(np.float32)
    light = generator.normal(0, 0.7, (_RANDOM_SCENES, 3, 1, 1)).astype(np.float32)
    scenes = np.concatenate([tracing.scene(_SETTLE_SIDE, seed) for seed in range(_RANDOM_SCENES)])
    return torch.from_numpy(scenes * contrast + light)


def _fused(module: Any) -> Any:
    """A copy whose BatchNorm layers are folded into the convolutions before them."""
    fused = copy.deepcopy(module)
    _fold(fused, "conv1", "bn1")
    for block in (m for m in fused.modules() if isinstance(m, Bottleneck)):
        for number in "123":
            _fold(block, f"conv{number}", f"bn{number}")
        if block.downsample is not None:
            _fold(block.downsample, "0", "1")
    return fused


def _fold(parent: Any, convolution: str, norm: str) -> None:
    both = getattr(parent, convolution), getattr(parent, norm)
    setattr(parent, convolution, fuse_conv_bn_eval(*both))
    setattr(parent, norm, torch.nn.Identity())


def _architecture(classes: int = CLASSES) -> Any:
    return torchvision.models.resnet50(weights=None, num_classes=classes)


def classes_of(path: Path) -> int:
    """Return the number of classes in a checkpoint, 0 where it has none.

    Raises:
        ExportError: it can't be read.
    """
    state = {name.removeprefix("module."): value for name, value in _state(path).items()}
    return int(state["fc.weight"].shape[0]) if "fc.weight" in state else 0


def _checkpoint(path: Path, wanted: int) -> Any:
    """A checkpoint as MIT's training script writes it: `{'state_dict': {'module.conv1.weight': …}, …}`."""
    state = {name.removeprefix("module."): value for name, value in _state(path).items()}
    classes = state["fc.weight"].shape[0] if "fc.weight" in state else 0
    if classes != wanted:
        raise ExportError(f"{path} knows {classes} classes; the contract [1, {wanted}] needs {wanted}")
    module = _architecture(wanted)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ExportError(
            f"{path} holds another network than ResNet50: {str(error).splitlines()[0]}"
        ) from error
    return module


def _state(path: Path) -> Mapping[str, Any]:
    try:
        # A pickle could run code. The official file is one of Python 2: `weights_only` reads its strings, too.
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling raises is told the same way
        raise ExportError(f"{path} is no checkpoint that torch can read: {error}") from error
    state = document.get("state_dict") if isinstance(document, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ExportError(f"{path} has no 'state_dict' with tensors, as Places365's checkpoints do")
    return state
