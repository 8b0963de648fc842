"""Make the service's test models and the tests' videos: `make_inputs.py FOLDER`, in the service's environment."""

from __future__ import annotations

import sys
from pathlib import Path

from support import videos
from support.models import repository

_BRANCHES = (*repository.DETECTORS, *repository.DEPTH, *repository.OTHERS)


def main(folder: Path) -> None:
    """Write `models/`, `numbered.mp4` and `damaged.mp4`."""
    repository.build(folder / "models", _BRANCHES)
    videos.count(folder / "numbered.mp4", 50)
    whole = videos.write(folder / "textured.mp4", videos.textured())
    videos.cut(videos.write(folder / "long.avi", videos.textured(), codec="mjpeg", pix_fmt="yuvj420p"), 0.6)
    (folder / "cut-long.avi").rename(folder / "damaged.avi")
    whole.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
