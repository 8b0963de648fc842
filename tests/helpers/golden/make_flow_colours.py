"""Make the golden pictures of known flow fields: torchvision's `flow_to_image`, Baker's colour wheel.

Run it in the export environment, from anywhere; `-P` keeps the folder `triton/` from shadowing the package:

    .venv-export/bin/python -P tests/helpers/golden/make_flow_colours.py

It writes `flow_colours.npz` beside itself: a picture `[H, W, 3]` uint8 for each field of `flow_fields.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

import numpy as np  # noqa: E402 - after the path, as all below
import torch  # noqa: E402
from golden.flow_fields import FIELDS  # noqa: E402
from torchvision.utils import flow_to_image  # noqa: E402


def main() -> None:
    pictures = {
        name: flow_to_image(torch.from_numpy(make())).numpy().transpose(1, 2, 0)
        for name, make in FIELDS.items()
    }
    np.savez_compressed(HERE / "flow_colours.npz", allow_pickle=False, **pictures)


if __name__ == "__main__":
    main()
