"""Inputs of `gateway smoke`, and checks of the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.media.vocabulary import clip_merges
from app.probes import Arrays
from app.vision.prompts import Tokenizer
from routing.catalogue import Branch

# Of clearly different lengths, too: what a text model answers may depend on little else.
PROMPTS = (
    "a photo of a cat",
    "two small wooden boats with white sails, far out at sea on a calm and cloudless evening in late summer, in oil",
)
_COLOURS = (((255, 0, 0), (0, 255, 0)), ((0, 0, 255), (255, 255, 0)))
# Less than this part of the greatest value is what FP32 loses on the way, no answer to another input.
_NOISE = 1e-6


def picture(size: int, number: int) -> NDArray[np.uint8]:
    """A shaded square with two coloured patches, `[size, size, 3]` uint8 RGB; `number` 0 and 1 differ in both."""
    ramp = np.linspace(70, 160, size, dtype=np.float32)
    across, down = np.meshgrid(ramp, ramp[::-1] if number else ramp)
    rgb = np.stack([across, down, (across + down) / 2], axis=2).astype(np.uint8)
    side = size // 4 // 32 * 32 or size // 4
    for place, colour in enumerate(_COLOURS[number]):
        start = (1 + 3 * place - number) * (size // 8) // 32 * 32
        rgb[start : start + side, start : start + side] = colour
    return rgb


def tensors(branch: Branch, number: int) -> dict[str, NDArray[Any]]:
    """Inputs of a branch by its contract: a picture, a picture and the same one moved, or a prompt's tokens."""
    arrays: dict[str, NDArray[Any]] = {}
    for at, spec in enumerate(branch.inputs):
        if spec.datatype == "INT64":
            arrays[spec.name] = Tokenizer(clip_merges())(PROMPTS[number]).ids[None]
            continue
        rgb = np.roll(picture(branch.size or 0, number), 8 * at, axis=1)
        if spec.datatype == "UINT8":
            arrays[spec.name] = rgb[None]
        else:
            arrays[spec.name] = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32) / 255
    return arrays


def fault_of(answers: Sequence[Arrays], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the fault in the answers to two different inputs, or None if there is no visible one.

    `shapes` are those of the contract; -1 stands for any length.
    """
    for answer in answers:
        for name, shape in shapes.items():
            if name not in answer:
                return f"{name} is not in the answer"
            fault = _fault_of_one(name, answer[name], shape)
            if fault:
                return fault
    first, second = answers
    if all(_same(first[name], second[name]) for name in shapes):
        return "the same answer to two different inputs"
    return None


def nothing_to_compare(answers: Sequence[Arrays]) -> bool:
    """Both answers are empty: no box in either picture."""
    return all(array.size == 0 for answer in answers for array in answer.values())


def _fault_of_one(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> str | None:
    if len(array.shape) != len(shape) or any(
        want not in (-1, got) for want, got in zip(shape, array.shape, strict=True)
    ):
        return f"{name} has the shape {list(array.shape)}, the contract says {list(shape)}"
    if not np.isfinite(array).all():
        share = 100 * float((~np.isfinite(array)).mean())
        return f"{name}: {share:.3g} % of its values are not finite"
    if array.size > 1 and array.min() == array.max():
        return f"{name} is {array.flat[0]:.4g} everywhere"
    return None


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.shape != other.shape or one.size == 0:
        return False
    greatest = float(np.abs(one).max())
    return bool(np.abs(one - other).max() <= _NOISE * greatest)
