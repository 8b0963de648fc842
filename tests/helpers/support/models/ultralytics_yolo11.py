"""YOLO11 by Ultralytics and PyTorch: what our own export is compared with. Only `make test-export` has the packages."""

from __future__ import annotations

import atexit
import copy
import functools
import io
import os
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch

from export.yolo11.records import Array

PICTURES = ("bus.jpg", "zidane.jpg")
_SETTLE_SIDE = 320
_GAIN = 0.1  # see `export.yolo11.architecture.DAMPED`


@functools.cache
def ultralytics() -> SimpleNamespace:
    """The few names of Ultralytics, imported so that it asks no network and installs nothing."""
    folder = tempfile.TemporaryDirectory(prefix="gateway-parity-")
    atexit.register(folder.cleanup)
    os.environ.update(
        YOLO_OFFLINE="1",
        YOLO_AUTOINSTALL="0",
        YOLO_CONFIG_DIR=folder.name,
        YOLO_VERBOSE="false",
        ULTRALYTICS_SAFE_LOAD="1",
    )
    from ultralytics.data.augment import LetterBox  # noqa: PLC0415 (reads the environment when it is imported)
    from ultralytics.nn.tasks import DetectionModel, load_checkpoint  # noqa: PLC0415 (ditto)
    from ultralytics.utils import ASSETS  # noqa: PLC0415 (ditto)
    from ultralytics.utils.nms import non_max_suppression  # noqa: PLC0415 (ditto)

    return SimpleNamespace(
        ASSETS=ASSETS,
        DetectionModel=DetectionModel,
        LetterBox=LetterBox,
        load_checkpoint=load_checkpoint,
        non_max_suppression=non_max_suppression,
    )


def network(name: str, classes: int = 80) -> Any:
    """A network by the name of its description, such as `yolo11n.yaml`, as it is initialised."""
    return ultralytics().DetectionModel(name, nc=classes, verbose=False)


def settled(variant: str) -> Any:
    """A network with random weights whose answer depends on its input; left as initialised, the signal dies."""
    torch.manual_seed(0)
    module = network(f"yolo11{variant}.yaml")
    batch = torch.rand(2, 3, _SETTLE_SIDE // 8, _SETTLE_SIDE // 8)
    batch = torch.nn.functional.interpolate(batch, _SETTLE_SIDE, mode="bilinear")
    with torch.no_grad():
        module.train()
        for norm in (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.reset_running_stats()
            norm.momentum = None  # the statistics are the plain mean over the batches
            norm.weight.fill_(_GAIN)
        module(batch)
        _rescale(module.eval(), batch)
    return module


def _rescale(module: Any, batch: torch.Tensor) -> None:
    """Give the logits of every level of the head a spread of one around a centre."""
    head = module.model[-1]
    _, raw = module(batch)
    ends = np.cumsum([(_SETTLE_SIDE // int(stride)) ** 2 for stride in head.stride])[:-1].tolist()
    for sequences, logits, centre in ((head.cv2, raw["boxes"], 0.0), (head.cv3, raw["scores"], -9.0)):
        for sequence, level in zip(sequences, logits.tensor_split(ends, dim=2), strict=True):
            last, spread, mean = sequence[-1], level.std(dim=(0, 2)).mean(), level.mean(dim=(0, 2))
            last.weight /= spread
            last.bias.copy_((last.bias - mean) / spread + centre)


def load(path: Path) -> Any:
    module, _ = ultralytics().load_checkpoint(path)
    return module


def save(module: Any, path: Path, **state: Any) -> Path:
    """A checkpoint in Ultralytics' form."""
    torch.save({"model": module, "ema": None, "train_args": {}, **state}, path)
    return path


def exported(module: Any, side: int) -> bytes:
    """The graph of PyTorch's classic exporter, of the network as Ultralytics' own exporter prepares it."""
    module = copy.deepcopy(module).float().eval().fuse(verbose=False).requires_grad_(False)
    module.model[-1].export = True
    file, example = io.BytesIO(), torch.zeros(1, 3, side, side)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        module(example)  # lays the anchors
        names = {"input_names": ["images"], "output_names": ["output0"]}
        torch.onnx.export(module, (example,), file, dynamo=False, opset_version=17, **names)
    return file.getvalue()


def picture(name: str, side: int) -> Array:
    """One of Ultralytics' pictures as the network meets it: letterboxed, RGB, FP32 `[1, 3, side, side]` in 0…1."""
    image = cv2.imread(str(ultralytics().ASSETS / name))
    square = ultralytics().LetterBox((side, side), auto=False, scaleup=False)(image=image)
    return np.ascontiguousarray(square[:, :, ::-1].transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(
        255
    )


def boxes(answer: Array) -> Array:
    """The boxes `[n, 6]` that survive suppression: corners, score, class."""
    (kept,) = ultralytics().non_max_suppression(torch.from_numpy(answer), conf_thres=0.25, iou_thres=0.7)
    return np.asarray(kept.numpy())
