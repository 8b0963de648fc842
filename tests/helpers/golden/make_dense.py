"""Make the golden data of depth and flow: the reference networks with the exporter's random weights, not folded.

Run it in the export environment, from `tests/helpers`, where no folder `triton/` shadows the package:

    cd tests/helpers && ../../.venv-export/bin/python -m golden.make_dense

It writes `dense.json` and `dense.npz` beside itself: numbers only, no pixels and no weights.

How the references resize, both stretching to the square, rounding to uint8, then (x / 255 - 0.5) / 0.5:

- depth: bicubic, a = -0.5, with antialias. transformers has the rule twice, and both are official:
  `DPTImageProcessorPil` is Pillow's `resize(BICUBIC)`; `DPTImageProcessor` is torchvision's on uint8 tensors, which
  rounds differently in less than 0.5 % of the values (by 1 level, at times 2). Both are here: the keys of
  torchvision's answers end in `_torchvision`, and `other_backend` says how far they are from Pillow's, as a part of
  the largest value. OpenCV has no such rule: INTER_CUBIC is a = -0.75 without antialias, and INTER_AREA is a box, off
  by 13 to 138 levels on these pictures.
- flow: torchvision's own transforms don't resize (its examples resize beforehand). Here: bilinear with antialias,
  Pillow's `resize(BILINEAR)`, and torchvision's, which differs from it by at most 1 level.

Depth at the source's size is `post_process_depth_estimation`: bicubic, a = -0.75, no antialias, half-pixel centres.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
import transformers
from golden.exported import digests, rows, versions
from golden.pictures import BY_NAME, Pixels, crop, default_folders, digest
from PIL import Image
from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize
from transformers import DPTImageProcessor, DPTImageProcessorPil

from export.exporters import EXPORTERS
from export.families import midas, raft
from export.weights import random_weights
from routing import catalogue

HERE = Path(__file__).resolve().parent

NAMES = ("coffee", "chelsea")
SIZES = (256, 384, 512)
FLOWS = {256: ("small", "large"), 384: ("small",), 512: ("small",)}  # by size, of which networks
BRANCHES = (*(f"midas_{size}" for size in SIZES), *(f"raft_{size}" for size in SIZES), "raft_large_256")
TRANSFORMS = {
    "small": Raft_Small_Weights.DEFAULT.transforms(),
    "large": Raft_Large_Weights.DEFAULT.transforms(),
}
OTHER = "_torchvision"  # ends the keys of the answers to torchvision's pixels
SHIFT = 4  # pixels of the source, to the right from the first frame to the second
STEP = {"depth": slice(4, None, 8), "flow": slice(8, None, 16), "source": slice(8, None, 16)}

log = logging.getLogger("make_dense")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_grad_enabled(False)
    arrays: dict[str, Any] = {}
    cases = []
    for size in SIZES:
        for name in NAMES:
            rgb = BY_NAME[name].pixels(default_folders())
            for case in (
                depth(rgb, size, arrays, f"{name}_{size}"),
                *(flow(rgb, size, variant, arrays, f"{name}_{size}") for variant in FLOWS[size]),
            ):
                cases.append({"picture": name, "sha256": digest(rgb), "size": size, **case})
                log.info("%s", cases[-1])
    np.savez_compressed(HERE / "dense.npz", allow_pickle=False, **arrays)
    facts = {
        "made_by": "golden/make_dense.py",
        "weights": "random",
        "versions": versions(PIL, np, torch, torchvision, transformers),
        "shift": SHIFT,
        "grids": {name: [step.start, step.step] for name, step in STEP.items()},
        "digests": digests(BRANCHES),
    }
    (HERE / "dense.json").write_text(rows(facts, "cases", cases), encoding="utf-8")


def depth(rgb: Pixels, size: int, arrays: dict[str, Any], key: str) -> dict[str, Any]:
    """The reference's depth `[size, size]`, and that at the source's size, on their grids, by both processors."""
    branch = catalogue.load().branches[f"midas_{size}"]
    net = midas.network(EXPORTERS["depth"].checkpoint_name(branch), random_weights())
    if net.config.is_hybrid:
        net.dpt.embeddings.image_size = (size, size)
    square = {"height": size, "width": size}
    maps = []
    for ending, processor in (
        ("", DPTImageProcessorPil(size=square)),
        (OTHER, DPTImageProcessor(size=square)),
    ):
        answer = net(**processor(rgb.copy(), return_tensors="pt"))
        (source,) = processor.post_process_depth_estimation(answer, target_sizes=[rgb.shape[:2]])
        maps.append(answer.predicted_depth[0].numpy())
        arrays[f"depth_{key}{ending}"] = maps[-1][STEP["depth"], STEP["depth"]]
        arrays[f"depth_source_{key}{ending}"] = source["predicted_depth"].numpy()[
            STEP["source"], STEP["source"]
        ]
    resized = np.asarray(Image.fromarray(rgb).resize((size, size), Image.Resampling.BICUBIC))
    return {"family": "depth", "square_sha256": digest(resized), **summary(*maps)}


def flow(rgb: Pixels, size: int, variant: str, arrays: dict[str, Any], key: str) -> dict[str, Any]:
    """The reference's flow `[2, size, size]` in pixels of the square, on its grid, by both ways to resize."""
    height, width = rgb.shape[:2]
    first = np.ascontiguousarray(crop(SHIFT, 0, width - SHIFT, height)(rgb))
    second = np.ascontiguousarray(crop(0, 0, width - SHIFT, height)(rgb))
    net, transforms = raft.network(variant, random_weights()), TRANSFORMS[variant]
    squares = [Image.fromarray(f).resize((size, size), Image.Resampling.BILINEAR) for f in (first, second)]
    values = net(*(frame[None] for frame in transforms(*squares)))[-1][0].numpy()
    others = [torchvision_square(frame, size) for frame in (first, second)]
    other = net(*(frame[None] for frame in transforms(*others)))[-1][0].numpy()
    for ending, field in (("", values), (OTHER, other)):
        arrays[f"flow_{variant}_{key}{ending}"] = field[:, STEP["flow"], STEP["flow"]]
    hashes = [digest(np.asarray(square)) for square in squares]
    return {"family": "flow", "variant": variant, "square_sha256": hashes, **summary(values, other)}


def torchvision_square(rgb: Pixels, size: int) -> torch.Tensor:
    planes = torch.from_numpy(rgb.transpose(2, 0, 1).copy())
    square: torch.Tensor = resize(planes, [size, size], InterpolationMode.BILINEAR, antialias=True)
    return square


def summary(values: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> dict[str, float]:
    """Numbers over the whole map, and how far the other official resize is from it."""
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
        "other_backend": float(np.abs(other - values).max() / np.abs(values).max()),
    }


if __name__ == "__main__":
    main()
