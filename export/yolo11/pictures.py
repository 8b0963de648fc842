"""Made-up pictures: enough like photographs that a network answers them differently."""

from __future__ import annotations

import numpy as np

from export.yolo11.records import Array


def clouds(generator: np.random.Generator, count: int, side: int) -> Array:
    """Noise `[count, 3, side, side]` FP32 in 0…1 with the contrast of a photograph, coarse structures the strongest."""
    total = np.zeros((count, 3, side, side))
    cells = side
    while cells >= 2:
        octave = generator.random((count, 3, cells, cells)) - 0.5
        steps = (np.arange(side) * cells) // side
        total += octave[:, :, steps][:, :, :, steps] / cells**0.5
        cells //= 2
    bright: Array = np.clip(0.45 + 0.28 * total / total.std(), 0, 1)
    return bright.astype(np.float32)


def scene(seed: int, side: int) -> Array:
    """Discs of one colour in front of clouds, `[1, 3, side, side]` FP32 in 0…1."""
    generator = np.random.default_rng(seed)
    picture = clouds(generator, 1, side)
    rows, columns = np.mgrid[:side, :side] / side
    for x, y, size, *colour in generator.random((12, 6)):
        picture[0, :, (columns - x) ** 2 + (rows - y) ** 2 < (0.05 + 0.15 * size) ** 2] = colour
    return picture
