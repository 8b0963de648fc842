"""Make the golden pictures of known flow fields: torchvision's `flow_to_image`, Baker's colour wheel.

Run it in the export environment, from `tests/helpers`, where no folder `triton/` shadows the package:

    cd tests/helpers && ../../.venv-export/bin/python -m golden.make_flow_colours

It writes `flow_colours.npz` beside itself: a picture `[H, W, 3]` uint8 for each field of `flow_fields.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from golden.flow_fields import FIELDS
from torchvision.utils import flow_to_image

HERE = Path(__file__).resolve().parent


def main() -> None:
    pictures = {
        name: flow_to_image(torch.from_numpy(make())).numpy().transpose(1, 2, 0)
        for name, make in FIELDS.items()
    }
    np.savez_compressed(HERE / "flow_colours.npz", allow_pickle=False, **pictures)


if __name__ == "__main__":
    main()
