"""Make the pictures of docs/pictures.md from a running gateway, and the colour wheel from the code itself.

    .venv/bin/python docs/make_pictures.py [--url http://127.0.0.1:8080] [--only-wheel]

The flow pair is a photo and the same photo zoomed and shifted, so that the flow is known for every pixel. What the
models that answered know is written below each picture: with random weights a picture shows that the plumbing works,
and no more.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from app.media.resize import resize_map
from app.vision import flow as flows

DOCS = Path(__file__).resolve().parent
PHOTO = DOCS / "astronaut.jpg"
ZOOM, SHIFT = (
    1.06,
    (14.0, -8.0),
)  # of the second frame about its centre, and then in pixels to the right and down
PANEL = 256  # width of a panel, in pixels
GREYS = 24  # of a photo's panel: enough to see what is on it; the palette's other colours are the answer's
WORDS = {
    "random": "RANDOM WEIGHTS: noise that recognises nothing",
    "pretrained": "pretrained weights",
    "checkpoint": "weights of a checkpoint",
}

Pixels = NDArray[np.uint8]
Field = NDArray[np.float32]


def main() -> None:
    """Write docs/flow_colours.png, and docs/depth.png and docs/flow.png unless told otherwise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--only-wheel", action="store_true", help="what needs no gateway")
    options = parser.parse_args()
    wheel_picture().save(DOCS / "flow_colours.png", optimize=True)
    if options.only_wheel:
        return
    with httpx2.Client(base_url=options.url, timeout=120) as http:
        save(depth_picture(http), DOCS / "depth.png")
        save(flow_picture(http), DOCS / "flow.png")


def depth_picture(http: httpx2.Client) -> Image.Image:
    """The photo, and its depth as `/v1/depth?render=color` answers it."""
    headers = {"Accept": "image/png"}
    response = http.post("/v1/depth?render=color", content=PHOTO.read_bytes(), headers=headers)
    answer, words = read(response)
    photo = posterised(np.asarray(Image.open(PHOTO)))
    return beside([photo, answer], ["docs/astronaut.jpg", "POST /v1/depth"], words)


def flow_picture(http: httpx2.Client) -> Image.Image:
    """Two frames, the flow that lies between them by construction, and `/v1/flow`'s answer."""
    first = np.asarray(Image.open(PHOTO))
    second, known = moved(first)
    files = {name: (name, png(frame)) for name, frame in (("frame0", first), ("frame1", second))}
    answer, words = read(http.post("/v1/flow", files=files, headers={"Accept": "image/png"}))
    titles = ["frame0", f"frame1: zoom {ZOOM}, shift {SHIFT}", "what it should be", "POST /v1/flow"]
    photos = [posterised(frame) for frame in (first, second)]
    return beside([*photos, flows.colours(known), answer], titles, words)


def moved(rgb: Pixels) -> tuple[Pixels, Field]:
    """The frame zoomed about its centre and shifted, and how far each of its pixels has moved: `[2, H, W]`."""
    height, width = rgb.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.array([[ZOOM, 0, 0], [0, ZOOM, 0]])
    matrix[:, 2] = centre - ZOOM * centre + SHIFT
    second = cv2.warpAffine(
        rgb, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return second.astype(np.uint8), radial(width, height, ZOOM - 1) + np.array(SHIFT, np.float32)[
        :, None, None
    ]


def read(response: Any) -> tuple[Pixels, str]:
    """The picture that a route answered, and what its provenance says of the weights."""
    response.raise_for_status()
    (used,) = json.loads(response.headers["x-provenance"])["models_used"]
    words = f"{used['model_name']}, {WORDS.get(used['weights'], used['weights'])}"
    return np.asarray(Image.open(io.BytesIO(response.content)).convert("RGB")), words


def radial(width: int, height: int, gain: float) -> Field:
    """Every pixel moves away from the centre by `gain` times its distance."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x - (width - 1) / 2, y - (height - 1) / 2]).astype(np.float32) * np.float32(gain)


def turning(width: int, height: int, degrees: float) -> Field:
    """Every pixel moves around the centre, clockwise on the screen: `x` grows to the right, `y` downwards."""
    x, y = radial(width, height, 1.0)
    return np.stack([-y, x]) * np.float32(np.deg2rad(degrees))


def wheel_picture() -> Image.Image:
    """The convention; a known rotation; and the same one after a branch's square and back."""
    width, height, square = 320, 240, 256
    known = turning(width, height, 4)
    in_square = np.stack([cv2.resize(plane, (square, square)) for plane in known])
    in_square *= np.array([square / width, square / height], np.float32)[:, None, None]
    back = resize_map(flows.scale_to(in_square, width, height), width, height, "linear")
    difference = float(np.abs(back - known).max())
    disc = radial(height, height, 1.0)
    disc[:, np.hypot(*disc) > height / 2 - 1] = 0
    panels = [
        arrows(flows.colours(disc), disc),
        arrows(flows.colours(known), known),
        arrows(flows.colours(back), back),
    ]
    titles = [
        "the wheel: away from the middle",
        f"a rotation by 4 degrees, {width}x{height}",
        f"the same from {square}x{square}",
    ]
    return beside(panels, titles, f"no model: the last two differ by at most {difference:.3f} source pixels")


def arrows(rgb: Pixels, field: Field, step: int = 40) -> Pixels:
    """The picture with the field's directions drawn: where a pixel goes, magnified to be seen."""
    height, width = rgb.shape[:2]
    drawn, scale = rgb.copy(), 0.7 * step / max(float(np.hypot(*field).max()), 1e-6)
    for y in range(step // 2, height, step):
        for x in range(step // 2, width, step):
            dx, dy = (round(float(v) * scale) for v in field[:, y, x])
            inside = 0 <= x + dx < width and 0 <= y + dy < height
            if inside and np.hypot(dx, dy) > 2:
                cv2.arrowedLine(drawn, (x, y), (x + dx, y + dy), (0, 0, 0), 1, cv2.LINE_AA, tipLength=0.35)
    return drawn


def beside(panels: list[Pixels], titles: list[str], words: str) -> Image.Image:
    """Panels in a row at one height, a title above each, one line below all."""
    font = ImageFont.load_default(size=13)
    height = round(PANEL * panels[-1].shape[0] / panels[-1].shape[1])
    shown = [Image.fromarray(p).resize((round(height * p.shape[1] / p.shape[0]), height)) for p in panels]
    picture = Image.new("RGB", (sum(p.width for p in shown) + 8 * (len(shown) + 1), height + 52), "white")
    draw, x = ImageDraw.Draw(picture), 8
    for panel, title in zip(shown, titles, strict=True):
        picture.paste(panel, (x, 26))
        draw.text((x, 6), title, fill="black", font=font)
        x += panel.width + 8
    draw.text((8, height + 31), words, fill="black", font=font)
    return picture


def posterised(rgb: Pixels) -> Pixels:
    """A photo at a panel's size, in few shades of grey."""
    panel = Image.fromarray(rgb).resize((PANEL, round(PANEL * rgb.shape[0] / rgb.shape[1]))).convert("L")
    return np.asarray(panel.quantize(GREYS, dither=Image.Dither.NONE).convert("RGB"))


def save(picture: Image.Image, path: Path) -> None:
    """Save an array as a PNG with a palette."""
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def png(rgb: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
