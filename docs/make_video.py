"""Makes docs/astronaut.mp4, 4 seconds at 25 frames a second: a camera that moves over docs/astronaut.jpg and zooms out.

    python docs/make_video.py docs/astronaut.jpg docs/astronaut.mp4

The picture is NASA's (public domain).
"""

from __future__ import annotations

import sys

import av
import numpy as np
from PIL import Image

FRAMES, FPS, WIDTH, HEIGHT = 100, 25, 384, 288


def main(source: str, target: str) -> None:
    picture = Image.open(source).convert("RGB")
    with av.open(target, "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"crf": "30", "preset": "veryslow", "g": "25"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            part = number / (FRAMES - 1)
            width = 400 + 112 * part
            left, top = (512 - width) * (1 - part), 10 + 60 * part
            box = (left, top, left + width, top + width * HEIGHT / WIDTH)
            view = picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(view), "rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main(*sys.argv[1:])
