"""The resizer of a service."""

from __future__ import annotations

from typing import Literal

from app.media.resizers.base import Resizer
from app.media.resizers.pillow import PillowResizer

ResizerName = Literal["auto", "fast", "pillow"]


def resizer_named(name: ResizerName) -> Resizer:
    """Return the resizer of this name; `auto` is the fast one where it is installed.

    Raises:
        ImportError: the package of the one that is named is missing.
    """
    if name == "pillow":
        return PillowResizer()
    try:
        from app.media.resizers.fast import FastResizer  # noqa: PLC0415  # no wheel for every platform
    except ImportError:
        if name == "fast":
            raise
        return PillowResizer()
    return FastResizer()
