"""Flow fields that are known by formula: for the script that makes the golden pictures, and for the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
HEIGHT, WIDTH = 48, 64


def radial(width: int = WIDTH, height: int = HEIGHT) -> Field:
    """`[2, H, W]`: every pixel moves away from the centre by its distance from it."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x - (width - 1) / 2, y - (height - 1) / 2]).astype(np.float32)


def turning(width: int = WIDTH, height: int = HEIGHT) -> Field:
    """Every pixel moves around the centre, clockwise on the screen, by its distance from it."""
    x, y = radial(width, height)
    return np.stack([-y, x])


def even(x: float, y: float) -> Field:
    """Every pixel moves by `(x, y)`."""
    return np.broadcast_to(np.array([x, y], np.float32)[:, None, None], (2, 8, 8)).copy()


FIELDS: Mapping[str, Callable[[], Field]] = MappingProxyType(
    {
        "radial": radial,
        "turning": turning,
        "right": lambda: even(3, 0),
        "down": lambda: even(0, 3),
        "left": lambda: even(-3, 0),
        "up": lambda: even(0, -3),
        "still": lambda: even(0, 0),
    }
)
