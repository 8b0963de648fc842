"""Make the golden squares: digests of torchvision's uint8 resize, which the default processors of transformers use.

Run it in the export environment, from `tests/helpers`:

    cd tests/helpers && ../../.venv-export/bin/python -m golden.make_squares

It writes `squares.json` beside itself: digests only, no pixels.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torchvision
from golden.exported import versions
from golden.pictures import BY_NAME, default_folders, digest
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

NAMES = ("coffee", "chelsea")
SIZES = (224, 256, 384, 512)
MODES = {"bicubic": InterpolationMode.BICUBIC, "linear": InterpolationMode.BILINEAR}


def main() -> None:
    squares = {}
    for name in NAMES:
        rgb = torch.from_numpy(BY_NAME[name].pixels(default_folders()).copy()).permute(2, 0, 1)
        for size in SIZES:
            for interpolation, mode in MODES.items():
                square = resize(rgb, [size, size], mode, antialias=True).permute(1, 2, 0)
                squares[f"{name}_{size}_{interpolation}"] = digest(square.contiguous().numpy())
    document = {
        "made_by": "golden/make_squares.py",
        "versions": versions(torch, torchvision),
        "squares": squares,
    }
    text = json.dumps(document, indent=1) + "\n"
    Path(__file__).with_name("squares.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
