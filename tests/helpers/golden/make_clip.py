"""Make the golden data of CLIP: transformers' CLIPModel and CLIPImageProcessor with the exporter's random weights.

Run it in the export environment, from `tests/helpers`, where no folder `triton/` shadows the package:

    cd tests/helpers && ../../.venv-export/bin/python -m golden.make_clip

It writes `clip.json` and `clip.npz` beside itself: numbers only, no pixels and no weights.

Each picture has three hashes or features a size: the square that transformers' Pillow processor cuts (uint8 RGB,
before it is normalised), its feature, and the feature that the torchvision processor, the library's default, leads to.
At 336 the square is made smaller to 320 by Pillow's bicubic, as the preprocess graph does, before the network sees it.
"""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
import transformers
from golden.exported import digests, rows, versions
from golden.pictures import BY_NAME, Pixels, default_folders, digest
from PIL import Image
from transformers import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from export.families.clip import load, reference
from export.weights import random_weights

HERE = Path(__file__).resolve().parent

NAMES = ("astronaut", "coffee", "coffee_odd_251x333", "chelsea_4k_4059x2700")
SIZES = {224: 224, 336: 320, 448: 448}  # of the branch, and what the network sees
PROMPTS = (0, 1, 2, 3, 4)  # rows of clip_tokens.json.gz
BRANCHES = ("clip_image_224", "clip_image_336", "clip_image_448", "clip_text")

log = logging.getLogger("make_clip")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = load(random_weights())
    arrays: dict[str, Any] = {}
    cases = []
    for name in NAMES:
        rgb = BY_NAME[name].pixels(default_folders())
        for size, seen in SIZES.items():
            square = cut(rgb, size)
            feature = reference(model, pixels(smaller(square, seen)))[0]
            fast = reference(model, pixels(smaller(cut(rgb, size, CLIPImageProcessor), seen)))[0]
            arrays[f"{name}_{size}"], arrays[f"{name}_{size}_torchvision"] = feature, fast
            height, width = rgb.shape[:2]
            case = {
                "picture": name,
                "width": width,
                "height": height,
                "sha256": digest(rgb),
                "size": size,
                "seen": seen,
                "crop_sha256": digest(square),
                "seen_sha256": digest(smaller(square, seen)),
                "torchvision_cosine": cosine(feature, fast),
            }
            cases.append(case)
            log.info("%s", case)
    prompts, ids = tokens()
    arrays["token_ids"] = ids.astype(np.uint16)
    with torch.no_grad():
        given = torch.from_numpy(ids)
        arrays["text_features"] = model.get_text_features(input_ids=given).pooler_output.numpy()
    np.savez_compressed(HERE / "clip.npz", allow_pickle=False, **arrays)
    facts = {
        "made_by": "golden/make_clip.py",
        "weights": "random",
        "versions": versions(PIL, np, torch, torchvision, transformers),
        "digests": digests(BRANCHES),
        "prompts": prompts,
    }
    (HERE / "clip.json").write_text(rows(facts, "cases", cases), encoding="utf-8")


def cut(rgb: Pixels, size: int, kind: Any = CLIPImageProcessorPil) -> Pixels:
    """The square uint8 RGB that a processor of transformers cuts out of `[height, width, 3]`."""
    processor = kind(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        do_rescale=False,
        do_normalize=False,
    )
    planes = np.asarray(processor(images=Image.fromarray(rgb), return_tensors="np")["pixel_values"][0])
    square = np.ascontiguousarray(planes.transpose(1, 2, 0)).astype(np.uint8)
    assert (square == planes.transpose(1, 2, 0)).all()
    return square


def smaller(square: Pixels, side: int) -> Pixels:
    if square.shape[0] == side:
        return square
    return np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC))


def pixels(square: Pixels) -> Any:
    """Return the processor's output for the network: `/255`, minus mean, by deviation; FP32 `[1, 3, side, side]`."""
    processor = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    return np.asarray(
        processor(images=Image.fromarray(square), return_tensors="np")["pixel_values"], np.float32
    )


def tokens() -> tuple[list[str], Any]:
    lines = json.loads(gzip.decompress((HERE / "clip_tokens.json.gz").read_bytes()))
    chosen = [lines[number] for number in PROMPTS]
    return [text for text, _ in chosen], np.array([ids for _, ids in chosen], np.int64)


def cosine(first: Any, second: Any) -> float:
    a, b = first.astype(np.float64), second.astype(np.float64)
    return round(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), 8)


if __name__ == "__main__":
    main()
