"""Make the golden data of the scenes: torchvision's resnet50 and transforms with the exporter's random weights.

Run it in the export environment, from `tests/helpers`, where no folder `triton/` shadows the package:

    cd tests/helpers && ../../.venv-export/bin/python -m golden.make_places

It writes `places.json` and `places.npz` beside itself: numbers only, no pixels and no weights.

Two ways of preparing a picture are official, both on Pillow images (so: bilinear with its antialias, on uint8):
`shortest`, of the training script's validation and the first demo: `Resize(256)`, `CenterCrop(224)`; and `square`, of
the demos since 2018: `Resize((256, 256))`, `CenterCrop(224)`. Other sizes keep that proportion: 384 for 336, 512 for
448. `plain` is without the margin: `Resize(S)`, `CenterCrop(S)`. `shortest_torchvision` is `shortest` of the
transforms' second version on uint8 tensors, which torchvision resizes itself, and rounds differently (by 1 level, at
times 2).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from golden.exported import digests, rows, versions
from golden.pictures import BY_NAME, Pixels, default_folders, digest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor, v2
from torchvision.transforms.functional import to_pil_image

from export.families.places import load
from export.weights import random_weights

HERE = Path(__file__).resolve().parent

NAMES = ("astronaut", "coffee", "coffee_odd_251x333", "chelsea_4k_4059x2700")
SIZES = (224, 336, 448)
BRANCHES = tuple(f"places365_resnet50_{size}" for size in SIZES)
TO_INPUT = Compose([ToTensor(), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])

log = logging.getLogger("make_places")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    network = load(random_weights()).module
    arrays: dict[str, Any] = {}
    cases = []
    for name in NAMES:
        rgb = BY_NAME[name].pixels(default_folders())
        height, width = rgb.shape[:2]
        for size in SIZES:
            for way, transform in ways(size).items():
                square = prepared(rgb, way, transform)
                with torch.no_grad():
                    logits = network(TO_INPUT(square)[None])[0].numpy()
                arrays[f"{name}_{size}_{way}"] = logits
                case = {
                    "picture": name,
                    "width": width,
                    "height": height,
                    "sha256": digest(rgb),
                    "size": size,
                    "way": way,
                    "crop_sha256": digest(np.asarray(square)),
                    "top5": np.argsort(-logits, kind="stable")[:5].tolist(),
                }
                cases.append(case)
                log.info("%s", case)
    np.savez_compressed(HERE / "places.npz", allow_pickle=False, **arrays)
    facts = {
        "made_by": "golden/make_places.py",
        "weights": "random",
        "versions": versions(PIL, np, torch, torchvision),
        "digests": digests(BRANCHES),
    }
    (HERE / "places.json").write_text(rows(facts, "cases", cases), encoding="utf-8")


def prepared(rgb: Pixels, way: str, transform: Any) -> Any:
    """Return the square as a Pillow image."""
    if not way.endswith("_torchvision"):
        return transform(Image.fromarray(rgb))
    return to_pil_image(transform(torch.from_numpy(rgb.transpose(2, 0, 1).copy())))


def ways(size: int) -> dict[str, Any]:
    margin = size * 256 // 224
    return {
        "shortest": Compose([Resize(margin), CenterCrop(size)]),
        "shortest_torchvision": v2.Compose([v2.Resize(margin), v2.CenterCrop(size)]),
        "square": Compose([Resize((margin, margin)), CenterCrop(size)]),
        "plain": Compose([Resize(size), CenterCrop(size)]),
    }


if __name__ == "__main__":
    main()
