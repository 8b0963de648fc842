"""The pictures of the detection parity: one list for the script that makes the golden data and for the tests.

Every picture is a file that a package carries (scikit-image, Ultralytics), or is derived from one by slicing, repeating
and integer arithmetic alone, so that no resampling library can make two machines differ. No pixel of them is
committed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Step = Callable[[Pixels], Pixels]

PROJECT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
MIME = {".jpg": "image/jpeg", ".png": "image/png"}


@dataclass(frozen=True)
class Folders:
    """Folders where the packages keep their pictures; None for a package that can't be found."""

    skimage: Path | None
    ultralytics: Path | None


@functools.cache
def default_folders() -> Folders:
    """The folders of the running interpreter's packages, else of the project's virtual environments."""
    return Folders(
        skimage=_package_folder("skimage", "data", ".venv"),
        ultralytics=_package_folder("ultralytics", "assets", ".venv-export"),
    )


def _package_folder(package: str, inside: str, environment: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # a top-level name: nothing is imported
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    roots += sorted(PROJECT.glob(f"{environment}/lib/python*/site-packages/{package}"))
    return next((root / inside for root in roots if (root / inside).is_dir()), None)


@dataclass(frozen=True)
class Picture:
    """A named picture: a package's file and the steps that derive it."""

    name: str
    package: str
    file: str
    steps: tuple[Step, ...] = ()

    def path(self, folders: Folders) -> Path | None:
        """The file that the picture is derived from, None where its package is absent."""
        folder: Path | None = getattr(folders, self.package)
        path = folder / self.file if folder else None
        return path if path and path.is_file() else None

    def pixels(self, folders: Folders) -> Pixels:
        """`[height, width, 3]` uint8 RGB, contiguous.

        Raises:
            FileNotFoundError: the package that carries the picture is absent.
        """
        path = self.path(folders)
        if path is None:
            raise FileNotFoundError(f"{self.file} of the package {self.package}")
        with Image.open(path) as image:
            rgb = np.asarray(image.convert("RGB"))
        for step in self.steps:
            rgb = step(rgb)
        return np.ascontiguousarray(rgb)

    def body(self, folders: Folders) -> tuple[bytes, str]:
        """Return the body to post and its media type: the file's own bytes, or a lossless PNG of a derived picture."""
        path = self.path(folders)
        if path is not None and not self.steps:
            return path.read_bytes(), MIME[path.suffix]
        buffer = io.BytesIO()
        Image.fromarray(self.pixels(folders)).save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue(), "image/png"


def digest(pixels: Pixels) -> str:
    """The sha256 of the pixels in row order, without their shape."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def crop(left: int, top: int, width: int, height: int) -> Step:
    return lambda rgb: rgb[top : top + height, left : left + width]


def every(step: int) -> Step:
    return lambda rgb: rgb[::step, ::step]


def repeat(times: int) -> Step:
    return lambda rgb: rgb.repeat(times, axis=0).repeat(times, axis=1)


def tile(rows: int, columns: int) -> Step:
    return lambda rgb: np.tile(rgb, (rows, columns, 1))


def turn(quarters: int) -> Step:
    return lambda rgb: np.rot90(rgb, quarters)


def brighten(by: int) -> Step:
    return lambda rgb: np.clip(rgb.astype(np.int16) + by, 0, 255).astype(np.uint8)


def darken(divisor: int) -> Step:
    return lambda rgb: rgb // np.uint8(divisor)


def mirror(rgb: Pixels) -> Pixels:
    return rgb[:, ::-1]


def upside_down(rgb: Pixels) -> Pixels:
    return rgb[::-1]


def invert(rgb: Pixels) -> Pixels:
    return np.uint8(255) - rgb


def _ultralytics(name: str, file: str, *steps: Step) -> Picture:
    return Picture(name, "ultralytics", file, steps)


def _skimage(name: str, file: str, *steps: Step) -> Picture:
    return Picture(name, "skimage", file, steps)


PICTURES: tuple[Picture, ...] = (
    _ultralytics("bus", "bus.jpg"),
    _ultralytics("bus_mirrored", "bus.jpg", mirror),
    _ultralytics("bus_turned", "bus.jpg", turn(1)),
    _ultralytics("bus_dark", "bus.jpg", darken(3)),
    _ultralytics("bus_odd_401x777", "bus.jpg", crop(13, 211, 401, 777)),
    _ultralytics("bus_small_200x100", "bus.jpg", every(4), crop(1, 90, 200, 100)),
    _ultralytics("bus_strip_60x1080", "bus.jpg", crop(100, 0, 60, 1080)),
    _ultralytics("bus_4k_3240x4320", "bus.jpg", repeat(4)),
    _ultralytics("bus_crowd_1215x1080", "bus.jpg", every(2), tile(2, 3)),
    _ultralytics("zidane", "zidane.jpg"),
    _ultralytics("zidane_mirrored", "zidane.jpg", mirror),
    _ultralytics("zidane_bright", "zidane.jpg", brighten(70)),
    _ultralytics("zidane_half_640x360", "zidane.jpg", every(2)),
    _ultralytics("zidane_odd_333x501", "zidane.jpg", crop(700, 37, 333, 501)),
    _ultralytics("zidane_strip_1200x60", "zidane.jpg", crop(40, 300, 1200, 60)),
    _ultralytics("zidane_4k_3840x2160", "zidane.jpg", repeat(3)),
    _skimage("astronaut", "astronaut.png"),
    _skimage("astronaut_mirrored", "astronaut.png", mirror),
    _skimage("astronaut_upside_down", "astronaut.png", upside_down),
    _skimage("astronaut_small_128x128", "astronaut.png", every(4)),
    _skimage("astronaut_inverted", "astronaut.png", invert),
    _skimage("coffee", "coffee.png"),
    _skimage("coffee_turned", "coffee.png", turn(3)),
    _skimage("coffee_odd_251x333", "coffee.png", crop(207, 31, 251, 333)),
    _skimage("coffee_strip_1200x60", "coffee.png", repeat(2), crop(0, 420, 1200, 60)),
    _skimage("chelsea", "chelsea.png"),
    _skimage("chelsea_dark", "chelsea.png", darken(4)),
    _skimage("chelsea_small_200x100", "chelsea.png", every(2), crop(11, 21, 200, 100)),
    _skimage("chelsea_4k_4059x2700", "chelsea.png", repeat(9)),
    _skimage("chelsea_row_451x1", "chelsea.png", crop(0, 120, 451, 1)),
    _skimage("chelsea_tiled_1353x900", "chelsea.png", tile(3, 3)),
    _skimage("motorcycle_left", "motorcycle_left.png"),
    _skimage("motorcycle_right", "motorcycle_right.png"),
    _skimage("motorcycle_right_turned", "motorcycle_right.png", turn(1)),
    _skimage("motorcycle_odd_437x395", "motorcycle_left.png", crop(150, 61, 437, 395)),
    _skimage("rocket", "rocket.jpg"),
    _skimage("retina", "retina.jpg"),
    _skimage("hubble", "hubble_deep_field.jpg"),
    _skimage("camera_grey", "camera.png"),
    _skimage("coins_grey", "coins.png"),
    _skimage("clock_grey", "clock_motion.png"),
)

BY_NAME = {picture.name: picture for picture in PICTURES}
