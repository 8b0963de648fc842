"""YOLO11 to ONNX: fused, FP32, one fixed size a graph, checked against torch on real pictures."""

from __future__ import annotations

import atexit
import functools
import io
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from export.errors import ExportError
from export.exporters import EXPORTERS
from export.graphs import check_contract
from export.weights import SEED, Weights
from routing.catalogue import Branch, ModelSpec

CLASSES = 80
OPSET = EXPORTERS["detect"].opset

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Network:
    """A fused YOLO11 in export mode, and the names of its classes (none when it is random)."""

    module: Any
    labels: tuple[str, ...]


@functools.lru_cache(maxsize=1)  # the sizes of a variant come one after the other
def load(variant: str, weights: Weights) -> Network:
    """The network of a variant, ready to be traced.

    Raises:
        ExportError: the file holds no YOLO11 detector with 80 classes of this variant.
    """
    module = _random(variant) if weights.path is None else _checkpoint(variant, weights.path)
    labels = () if weights.path is None else tuple(module.names[i] for i in range(CLASSES))
    module = module.float().eval().fuse(verbose=False)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    module.model[-1].export = True  # the head answers one decoded tensor, boxes as centre, width, height
    return Network(module, labels)


def export(branch: Branch, weights: Weights) -> tuple[bytes, tuple[str, ...]]:
    """The ONNX graph of one branch and its class names; the graph is shown to have the catalogue's contract and to compute what torch computes.

    Raises:
        ExportError: it does not.
    """
    network = load(str(branch.variant), weights)
    (spec,) = branch.models
    pictures = [picture(path, spec.inputs[0].shape[-1]) for path in _pictures()]
    expected = [network.module(torch.from_numpy(array)).numpy() for array in pictures]  # sets the anchors, too
    content = _trace(network.module, pictures[0], spec)
    check_contract(onnx.load_from_string(content), spec, OPSET)
    _check_parity(content, spec, pictures, expected, weights)
    return content, network.labels


def _trace(module: Any, example: Array, spec: ModelSpec) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # the classic exporter is chosen on purpose (fixed shapes, stable bytes), and the head's shape tests are constants
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            module,
            (torch.from_numpy(example),),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=[t.name for t in spec.inputs],
            output_names=[t.name for t in spec.outputs],
        )
    return file.getvalue()


def _check_parity(
    content: bytes, spec: ModelSpec, pictures: list[Array], expected: list[Array], weights: Weights
) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    for array, reference in zip(pictures, expected, strict=True):
        (answer,) = session.run([spec.outputs[0].name], {spec.inputs[0].name: array})
        boxes = float(np.abs(answer[:, :4] - reference[:, :4]).max())
        scores = float(np.abs(answer[:, 4:] - reference[:, 4:]).max())
        if os.environ.get("DEBUG_PARITY"):
            print(f"PARITY {spec.name} {weights.kind} boxes {boxes:.5f} px scores {scores:.2e}; max score {reference[:,4:].max():.3f} n>.25 {(reference[:,4:].max(1)>.25).sum()}")


def picture(path: Path, side: int) -> Array:
    """A picture as the network meets it: letterboxed without upscaling, RGB, FP32 `[1, 3, side, side]` in 0…1."""
    image = cv2.imread(str(path))
    if image is None:
        raise ExportError(f"{path.name} can't be read; is the ultralytics package whole?")
    square = ultralytics().LetterBox((side, side), auto=False, scaleup=False)(image=image)
    planes = square[:, :, ::-1].transpose(2, 0, 1)[None]
    return np.ascontiguousarray(planes, dtype=np.float32) / np.float32(255)


def _pictures() -> tuple[Path, ...]:
    return tuple(ultralytics().ASSETS / name for name in ("bus.jpg", "zidane.jpg"))


def _checkpoint(variant: str, path: Path) -> Any:
    try:
        module, _ = ultralytics().load_checkpoint(path)
    except Exception as error:  # noqa: BLE001 (whatever unpickling a stranger's file raises is told the same way)
        raise ExportError(f"{path} is no checkpoint that Ultralytics can read: {error}") from error
    head = module.model[-1]
    if type(head).__name__ != "Detect" or head.end2end:
        raise ExportError(f"{path} holds a {type(head).__name__} head; yolo11{variant} needs a plain Detect head")
    if head.nc != CLASSES:
        raise ExportError(f"{path} knows {head.nc} classes; the contract [1, 84, anchors] needs {CLASSES}")
    here, wanted = _signature(module), _signature(_architecture(variant))
    if here != wanted:
        raise ExportError(f"{path} is no yolo11{variant}: {len(here)} weights of {sum(map(np.prod, here.values()))}")
    return module


def _signature(module: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


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
            norm.reset_running_stats()  # the constructor ran a batch of zeros through it
            norm.momentum = None  # the statistics are the plain mean over the batches
            norm.weight.fill_(float(os.environ.get("GAMMA","0.25")))
        for batch in batches:
            module(batch)
        module.eval()
        _rescale(module, batches[0])
    return module


def _clouds() -> torch.Tensor:
    """Noise with the contrast of a picture and, like one, coarse structures stronger than fine ones."""
    sides = (2, 5, 10, 20, 40, 80, 160, 320)
    octaves = [torch.randn(2, 3, side, side) / side**0.5 for side in sides]
    total = sum(torch.nn.functional.interpolate(octave, 320, mode="bilinear") for octave in octaves)
    return (0.45 + 0.28 * total / total.std()).clamp(0, 1)


def _rescale(module: Any, batch: torch.Tensor) -> None:
    """Give every logit of the head a spread of one; around 0 for boxes, around -5 for classes: few pass 0.25."""
    head = module.model[-1]
    _, raw = module(batch)
    ends = torch.tensor([(320 // int(stride)) ** 2 for stride in head.stride]).cumsum(0)[:-1].tolist()
    for ends_of, logits, centre in ((head.cv2, raw["boxes"], 0.0), (head.cv3, raw["scores"], float(os.environ.get("CENTRE","-6")))):
        for sequence, level in zip(ends_of, logits.tensor_split(ends, dim=2), strict=True):
            spread, mean = level.std(dim=(0, 2)).mean(), level.mean(dim=(0, 2))
            last = sequence[-1]
            last.weight /= spread
            last.bias.copy_((last.bias - mean) / spread + centre)


@functools.cache
def ultralytics() -> SimpleNamespace:
    """The few names of Ultralytics that export needs, imported so that it asks no network and installs nothing."""
    folder = tempfile.TemporaryDirectory(prefix="gateway-export-")
    atexit.register(folder.cleanup)
    os.environ.update(
        YOLO_OFFLINE="1", YOLO_AUTOINSTALL="0", YOLO_CONFIG_DIR=folder.name, ULTRALYTICS_SAFE_LOAD="1", YOLO_VERBOSE="false"
    )
    from ultralytics.data.augment import LetterBox  # noqa: PLC0415 (reads the environment when imported)
    from ultralytics.nn.tasks import DetectionModel, load_checkpoint  # noqa: PLC0415 (ditto)
    from ultralytics.utils import ASSETS  # noqa: PLC0415 (ditto)

    return SimpleNamespace(
        ASSETS=ASSETS, DetectionModel=DetectionModel, LetterBox=LetterBox, load_checkpoint=load_checkpoint
    )
