"""Make the golden data of detection: the checkpoint in Ultralytics, with its own letterbox and suppression.

Run it in the export environment, from `tests/helpers`, where no folder `triton/` shadows the package:

    cd tests/helpers && ../../.venv-export/bin/python -m golden.make_detect

It writes `detect.json` and `detect.npz` beside itself: numbers only, no pixels and no weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

SETTINGS = tempfile.TemporaryDirectory()  # Ultralytics writes its settings at import
os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="0", YOLO_CONFIG_DIR=SETTINGS.name)
HERE = Path(__file__).resolve().parent
import cv2  # noqa: E402 - after the path and the environment, as all below
import numpy as np  # noqa: E402
import PIL  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402 - loaded, so that the reference uses torchvision's suppression
import ultralytics  # noqa: E402
from golden.pictures import PICTURES, PROJECT, Folders, Pixels, default_folders, digest  # noqa: E402
from ultralytics.data.augment import LetterBox  # noqa: E402
from ultralytics.utils.nms import non_max_suppression  # noqa: E402
from ultralytics.utils.ops import scale_boxes  # noqa: E402

CONF, IOU, MAX_DET = 0.25, 0.7, 300
SIZES = (320, 640, 960)
CANDIDATE_SCORE = 0.1  # anchors whose best class scores less are left out
CLASS_SCORE = 0.01  # of the others, class scores below it are left out

log = logging.getLogger("make_detect")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    model = load(arguments.checkpoint)
    writer = Writer()
    for number, picture in enumerate(PICTURES, 1):
        rgb = picture.pixels(arguments.folders)
        writer.picture(picture.name, rgb)
        for size in SIZES:
            with torch.inference_mode():
                found = writer.case(picture.name, size, rgb, model)
            log.info("%d/%d %s at %d: %d boxes", number, len(PICTURES), picture.name, size, found)
    writer.write(arguments.checkpoint, arguments.out)


def parse() -> argparse.Namespace:
    default = default_folders()
    data = Path(os.environ.get("GATEWAY_REFERENCE_DATA", PROJECT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, default=data / "yolo11n.pt", help="trained weights")
    parser.add_argument("--skimage", type=Path, default=default.skimage, help="scikit-image's data folder")
    parser.add_argument(
        "--ultralytics", type=Path, default=default.ultralytics, help="Ultralytics' assets folder"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of torch; more may change the last bits"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="where to write detect.json and detect.npz")
    arguments = parser.parse_args()
    arguments.folders = Folders(arguments.skimage, arguments.ultralytics)
    return arguments


def load(checkpoint: Path) -> torch.nn.Module:
    """The network as Ultralytics' own predictor runs it: FP32, batch normalisation folded, evaluation mode."""
    network: torch.nn.Module = ultralytics.YOLO(str(checkpoint)).model.float().fuse(verbose=False).eval()
    return network


class Writer:
    """Collects all cases in flat arrays: candidates and detections of a case lie between two of its bounds."""

    def __init__(self) -> None:
        self.pictures: dict[str, Any] = {}
        self.cases: list[dict[str, Any]] = []
        self.arrays: dict[str, list[np.ndarray[Any, Any]]] = {}
        self.candidates = self.detections = 0

    def picture(self, name: str, rgb: Pixels) -> None:
        height, width = rgb.shape[:2]
        self.pictures[name] = {"width": width, "height": height, "sha256": digest(rgb)}

    def case(self, name: str, size: int, rgb: Pixels, model: torch.nn.Module) -> int:
        """Run one picture at one size; the number of boxes that the reference finds."""
        letterbox = LetterBox(new_shape=(size, size), auto=False, scaleup=False)
        geometry = letterbox.get_params({"img": rgb})
        square = letterbox(image=rgb.copy())
        planar = torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1)[None])).float() / 255
        output = model(planar)[0]
        kept, anchors = non_max_suppression(output.clone(), CONF, IOU, max_det=MAX_DET, return_idxs=True)
        candidates = self._candidates(output[0].numpy())
        detections = self._detections(kept[0], anchors[0], geometry, size, rgb.shape[:2])
        self.cases.append(
            {
                "picture": name,
                "size": size,
                "letterbox_sha256": digest(square),
                "candidates": [self.candidates, self.candidates + candidates],
                "detections": [self.detections, self.detections + detections],
            }
        )
        self.candidates += candidates
        self.detections += detections
        return detections

    def _candidates(self, output: np.ndarray[Any, Any]) -> int:
        """Keep the anchors of `[84, A]` that could matter, their class scores sparse."""
        scores = output[4:]
        anchors = np.flatnonzero(scores.max(axis=0) > CANDIDATE_SCORE)
        sparse = scores[:, anchors].T
        rows, classes = np.nonzero(sparse > CLASS_SCORE)
        self._add("candidate_anchor", anchors.astype(np.uint16))
        self._add("candidate_xywh", output[:4, anchors].T)
        self._add("candidate_class_count", np.bincount(rows, minlength=len(anchors)).astype(np.uint8))
        self._add("class_id", classes.astype(np.uint8))
        self._add("class_score", sparse[rows, classes])
        return len(anchors)

    def _detections(
        self,
        kept: torch.Tensor,
        anchors: torch.Tensor,
        geometry: dict[str, Any],
        size: int,
        shape: tuple[int, ...],
    ) -> int:
        """Keep the reference's answer `(n, 6)`, its boxes in source pixels: the resize's true ratios and pads."""
        (height, width), (new_width, new_height) = shape, geometry["new_unpad"]
        ratio_pad = ((new_height / height, new_width / width), (geometry["left"], geometry["top"]))
        boxes = scale_boxes((size, size), kept[:, :4].clone(), (height, width), ratio_pad)
        self._add("detection_xyxy", boxes.numpy())
        self._add("detection_score", kept[:, 4].numpy())
        self._add("detection_class_id", kept[:, 5].numpy().astype(np.uint8))
        self._add("detection_anchor", anchors.reshape(-1).numpy().astype(np.uint16))
        return len(kept)

    def _add(self, name: str, values: np.ndarray[Any, Any]) -> None:
        self.arrays.setdefault(name, []).append(values)

    def write(self, checkpoint: Path, out: Path) -> None:
        arrays = {name: np.concatenate(parts) for name, parts in self.arrays.items()}
        np.savez_compressed(out / "detect.npz", allow_pickle=False, **arrays)
        facts = {
            "made_by": "golden/make_detect.py",
            "checkpoint": checkpoint.name,
            "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            "conf": CONF,
            "iou": IOU,
            "max_det": MAX_DET,
            "candidate_score": CANDIDATE_SCORE,
            "class_score": CLASS_SCORE,
            "versions": versions(),
        }
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items()]
        lines.append(
            ' "pictures": {\n'
            + _rows(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in self.pictures.items())
            + "\n }"
        )
        lines.append(' "cases": [\n' + _rows(map(json.dumps, self.cases)) + "\n ]")
        (out / "detect.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _rows(rows: Any) -> str:
    return ",\n".join(f"  {row}" for row in rows)


def versions() -> dict[str, str]:
    return {
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "ultralytics": ultralytics.__version__,
    }


if __name__ == "__main__":
    main()
