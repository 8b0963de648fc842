"""Resizers and scaled JPEG decoding: CPU time, distance to the reference's pixels, and effect on answers.

    python -m benchmarks.resizing [--models triton/models] [--markdown FILE] [--json FILE]

The picture is the astronaut, enlarged to each size, with the grain of a camera. Every way brings it to the square of a
branch, as the family's catalogue entry says, into the same array; times are CPU times of this process, by turns.
Levels are compared with Pillow's whole picture. The effect compares the answers of the models in that repository to
Pillow's pixels and to the others: depth and flow as the mean difference in per cent of their range, embeddings as
1 - cosine, scenes as the total variation of their probabilities. With random weights it says how far pixels reach, and
nothing of how good answers are.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from app.media.image import decode_image
from app.media.resize import Fit, shortest_side, shown, square_into
from app.media.resizers.choice import resizer_named
from app.media.resizers.pillow import PillowResizer
from benchmarks import ROOT
from routing import catalogue as catalogues

Pixels = NDArray[np.uint8]
Way = Callable[[Pixels], Pixels]
SIZES = ((640, 480), (1920, 1080), (1080, 1350), (3840, 2160))
REPEATS = 9


@dataclass(frozen=True, slots=True)
class Case:
    """A branch, and how its family resizes."""

    branch: str
    size: int
    fit: Fit
    interpolation: str
    crop_ratio: float

    @classmethod
    def of(cls, name: str) -> Case:
        branch = catalogues.load().branches[name]
        prepare, size = branch.prepare, branch.size
        if prepare is None or size is None or prepare.fit == "letterbox":
            raise ValueError(f"{name} takes no squares")
        return cls(name, size, prepare.fit, prepare.interpolation, prepare.crop_ratio)


CASES = tuple(map(Case.of, ("midas_512", "raft_512", "clip_image_224", "places365_resnet50_224")))


def ways(case: Case) -> dict[str, Way]:
    """The candidates by name. Those that can't crop get the shown part of the frame first, as a view or a copy."""
    target = np.empty((case.size, case.size, 3), np.uint8)

    def ours(name: Any) -> Way:
        resizer = resizer_named(name)

        def run(rgb: Pixels) -> Pixels:
            square_into(resizer, rgb, target, case.fit, case.interpolation, case.crop_ratio)
            return target

        return run

    reformatter = VideoReformatter()
    swscale = Interpolation.BICUBIC if case.interpolation == "bicubic" else Interpolation.BILINEAR
    mode = cv2.INTER_CUBIC if case.interpolation == "bicubic" else cv2.INTER_LINEAR

    def by_swscale(rgb: Pixels) -> Pixels:
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(_part(rgb, case)), format="rgb24")
        small = reformatter.reformat(frame, case.size, case.size, interpolation=swscale, threads=1)
        target[:] = small.to_ndarray()
        return target

    def by_opencv(rgb: Pixels) -> Pixels:
        cv2.resize(_part(rgb, case), (case.size, case.size), dst=target, interpolation=mode)
        return target

    found = {
        "pillow": ours("pillow"),
        "fast": ours("auto"),
        "swscale": by_swscale,
        "OpenCV, aliased": by_opencv,
    }
    if find_spec("kornia_rs") is not None:
        found["kornia-rs"] = _kornia(case, target)
    return found


def _kornia(case: Case, target: Pixels) -> Way:
    from kornia_rs import imgproc  # type: ignore[import-not-found]  # noqa: PLC0415  # not part of the environment

    def run(rgb: Pixels) -> Pixels:
        part = np.ascontiguousarray(_part(rgb, case))
        name = "bicubic" if case.interpolation == "bicubic" else "bilinear"
        target[:] = imgproc.resize(part, (case.size, case.size), name)
        return target

    return run


def _part(rgb: Pixels, case: Case) -> Pixels:
    """The pixels that the square shows, to the nearest whole one."""
    columns, rows = shown(rgb.shape[1], rgb.shape[0], case.size, case.fit, case.crop_ratio)
    return rgb[round(rows.begin) : round(rows.end), round(columns.begin) : round(columns.end)]


def reference(rgb: Pixels, case: Case) -> Pixels:
    """Pillow over the whole frame, then the middle cut out."""
    if case.fit == "stretch":
        target = np.empty((case.size, case.size, 3), np.uint8)
        square_into(PillowResizer(), rgb, target, case.fit, case.interpolation)
        return target
    height, width = rgb.shape[:2]
    short = shortest_side(case.size, case.fit, case.crop_ratio)
    long = int(short * max(width, height) / min(width, height))
    size = (short, long) if width <= height else (long, short)
    filters = {"bicubic": Image.Resampling.BICUBIC, "linear": Image.Resampling.BILINEAR}
    resized = np.asarray(Image.fromarray(rgb).resize(size, filters[case.interpolation]))
    top, left = (round((side - case.size) / 2) for side in resized.shape[:2])
    return resized[top : top + case.size, left : left + case.size]


def photo(width: int, height: int) -> bytes:
    """A JPEG of ordinary quality."""
    rgb = np.asarray(Image.open(ROOT / "docs" / "astronaut.jpg"))
    large = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int64)
    grain = np.random.default_rng(width).integers(-8, 9, large.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def cpu_ms(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU milliseconds of this process, whose other threads rest, by turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS + 1):
        for name, run in runs.items():
            began = time.process_time()
            run()
            taken[name].append(1000 * (time.process_time() - began))
    return {name: statistics.median(ms[1:]) for name, ms in taken.items()}


class Model:
    """The preprocess graph and the network of a branch, on the CPU."""

    def __init__(self, folder: Path, branch: str) -> None:
        found = catalogues.load().branches[branch]
        names = (found.preprocess_model, found.weights_model)
        self._graphs = [_session(folder / name / "1" / "model.onnx") for name in names if name]

    def __call__(self, squares: list[Pixels]) -> NDArray[np.float32]:
        values: list[Any] = [square[None] for square in squares]
        for graph in self._graphs:
            inputs = zip(graph.get_inputs(), values, strict=True)
            values = graph.run(None, {spec.name: value for spec, value in inputs})
        return np.asarray(values[0][0], np.float32)


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def effect(case: Case, exact: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """See the module."""
    if case.branch.startswith("clip"):
        return float(1 - exact @ other / np.linalg.norm(exact) / np.linalg.norm(other))
    if case.branch.startswith("places"):
        one, two = (np.exp(v - v.max()) / np.exp(v - v.max()).sum() for v in (exact, other))
        return float(np.abs(one - two).sum() / 2)
    return float(np.abs(exact - other).mean() / (exact.max() - exact.min()) * 100)


def measure(case: Case, size: tuple[int, int], model: Model | None) -> list[dict[str, Any]]:
    """A row per resizer, and one for scaled decoding where the picture is large enough."""
    data = photo(*size)
    rgb = decode_image(data)
    expected = reference(rgb, case)
    found = ways(case)
    taken = cpu_ms({name: lambda way=way: way(rgb) for name, way in found.items()})  # type: ignore[misc]  # bound at once
    least = shortest_side(case.size, case.fit, case.crop_ratio)
    squares = {name: way(rgb).copy() for name, way in found.items()}
    decoding = cpu_ms(
        {"whole": lambda: decode_image(data), "scaled": lambda: decode_image(data, None, least)}
    )
    small = decode_image(data, None, least)
    if small.shape != rgb.shape:
        taken["scaled JPEG, fast"] = cpu_ms({"": lambda: found["fast"](small)})[""]
        squares["scaled JPEG, fast"] = found["fast"](small).copy()
    frames = 2 if case.branch.startswith("raft") else 1
    exact = None if model is None else model([expected, np.roll(expected, 3, 1)][:frames])
    rows = []
    for name, square in squares.items():
        levels = np.abs(square.astype(np.int64) - expected)
        row: dict[str, Any] = {
            "branch": case.branch, "filter": case.interpolation, "picture": "x".join(map(str, size)), "way": name,
            "decode_ms": round(decoding["scaled" if name.startswith("scaled") else "whole"], 2),
            "resize_ms": round(taken[name], 2), "levels_mean": round(float(levels.mean()), 3),
            "levels_most": int(levels.max()),
        }  # fmt: skip
        if model is not None and exact is not None:
            other = model([square, np.roll(square, 3, 1)][:frames])
            row["effect"] = float(f"{effect(case, exact, other):.2g}")
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| branch | picture | way | decode, ms CPU | resize, ms CPU | levels: mean, most | effect on the answer |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row['branch']}`, {row['filter']} | {row['picture']} | {row['way']} | {row['decode_ms']} | "
        f"{row['resize_ms']} | {row['levels_mean']}, {row['levels_most']} | {row.get('effect', '')} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write what is asked for."""
    cv2.setNumThreads(1)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, help="a model repository, for the effect on answers")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for case in CASES:
        model = None if options.models is None else Model(options.models, case.branch)
        for size in SIZES:
            rows += measure(case, size, model)
            print(table(rows[-7:]), flush=True)
    if options.markdown:
        options.markdown.write_text(table(rows), encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
