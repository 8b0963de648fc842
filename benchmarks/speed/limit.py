"""The limit: the fastest straight-line loop of each family that we know, without HTTP and without a framework.

    python -m benchmarks.speed.limit --triton-url 127.0.0.1:8001 [--cases 'depth_*'] [--in-flight 4] [--seconds 3]

A lane is one request in flight: a shared-memory region that Triton maps, the infer request over it (it never changes,
so it is serialised once and sent as the same bytes by a raw unary call), and every buffer that is needed. JPEG bytes
in, the answer's bytes out. `bare_asgi.py` puts the same lanes behind the barest ASGI app.

With `--serve` it reads a JSON order per line from standard input and answers each with a line, for `benchmarks.speed`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import grpc
import numpy as np
import orjson
import simplejpeg
from numpy.typing import NDArray

from app.engine.triton import shared_memory
from app.engine.triton.client import TritonClient
from app.engine.triton.messages import by_reference_request
from app.process import malloc
from app.vision.letterbox import Letterbox
from benchmarks.common.cases import CASES, MAIN, Case, select
from benchmarks.common.squares import Squares
from routing import catalogue as catalogues
from routing.catalogue import Branch, Family

PAD = np.float32(114 / 255)
SCALE = np.float32(1 / 255)
CONF, IOU, MAX_DET = 0.25, 0.7, 300
_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
Lane = Callable[[Sequence[bytes]], bytes]
# What a lane is made for: a branch, and whether its map goes back to the picture's size.
Key = tuple[str, bool]


class Rig:
    """Shared parts of a process's lanes: the channel, and the claim on its regions."""

    def __init__(self, triton_url: str) -> None:
        self._catalogue = catalogues.load()
        self._client = TritonClient(triton_url, 5)
        self._instance = shared_memory.Instance()
        self._regions: list[shared_memory.Region] = []
        self._channel = grpc.insecure_channel(triton_url, options=_OPTIONS)
        self._infer = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def lane(self, case: Case) -> Lane:
        """A new lane of the case's family."""
        branch = self._catalogue.branches[case.branch]
        make = source_lane if case.at_source else LANES[branch.family]
        return make(Tensors(self, branch), self._catalogue[branch.family])

    def region(self, branch: Branch) -> shared_memory.Region:
        region = shared_memory.Region(self._instance, branch.name, (*branch.inputs, *branch.outputs))
        self._client.register(region)
        self._regions.append(region)
        return region

    def call(self, request: bytes) -> None:
        self._infer(request)

    def close(self) -> None:
        for region in self._regions:
            self._client.unregister(region.name)
            region.unlink()
        self._instance.close()
        self._client.close()
        self._channel.close()


class Tensors:
    """A region's arrays, and the request that runs the branch on them."""

    def __init__(self, rig: Rig, branch: Branch) -> None:
        region = rig.region(branch)
        arrays = region.arrays()
        self.inputs = [arrays[spec.name] for spec in branch.inputs]
        self.output = arrays[branch.outputs[0].name]
        self.size = branch.size or 0
        self.squares: Sequence[NDArray[np.uint8]] = [tensor[0] for tensor in self.inputs]
        self._request = by_reference_request(branch, region)
        self._call = rig.call

    def run(self) -> None:
        self._call(self._request)


class Buffer:
    """Pixels of the last size, decoded into again."""

    def __init__(self) -> None:
        self._pixels: NDArray[np.uint8] = np.empty((0, 0, 3), np.uint8)

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """`[height, width, 3]` uint8 RGB, valid until the next call."""
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if self._pixels.shape[:2] != (height, width):
            self._pixels = np.empty((height, width, 3), np.uint8)
        return simplejpeg.decode_jpeg(data, "RGB", buffer=self._pixels)  # type: ignore[no-any-return]  # untyped


def detect_lane(tensors: Tensors, family: Family) -> Lane:
    """Letterbox into the region, decode and NMS; the gateway's boxes without its provenance."""
    buffer, planes, square = Buffer(), Planes(tensors.inputs[0][0], tensors.size), tensors.output[0]
    names = family.labels

    def run(frames: Sequence[bytes]) -> bytes:
        geometry = planes.fill(buffer.decode(frames[0]))
        tensors.run()
        boxes, scores, classes = suppress(square)
        rows = [
            {"box": box, "score": score, "class_id": number, "class_name": names[number], "track_id": None}
            for box, score, number in zip(
                geometry.undo(boxes).tolist(), scores.tolist(), classes.tolist(), strict=True
            )
        ]
        return orjson.dumps(
            {"detections": rows, "image": {"width": geometry.width, "height": geometry.height}}
        )

    return run


class Planes:
    """The letterboxed frame in a planar float tensor; pads and views are kept while frames keep their size."""

    def __init__(self, tensor: NDArray[np.float32], size: int) -> None:
        self._tensor, self._size = tensor, size
        self._shape: tuple[int, ...] = ()

    def fill(self, rgb: NDArray[np.uint8]) -> Letterbox:
        if rgb.shape != self._shape:
            self._remake(rgb.shape)
        if self._geometry.scale != 1:
            size = (self._geometry.new_width, self._geometry.new_height)
            rgb = cv2.resize(rgb, size, dst=self._small, interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]  # of the same dtype
        cv2.split(rgb, self._planes)
        for plane, view in zip(self._planes, self._views, strict=True):
            np.multiply(plane, SCALE, out=view)
        return self._geometry

    def _remake(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        at = self._geometry = Letterbox.fit(shape[1], shape[0], self._size)
        self._tensor.fill(PAD)
        self._small = np.empty((at.new_height, at.new_width, 3), np.uint8)
        self._planes = [np.empty((at.new_height, at.new_width), np.uint8) for _ in range(3)]
        self._views = [
            plane[at.top : at.top + at.new_height, at.left : at.left + at.new_width] for plane in self._tensor
        ]


def suppress(
    rows: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return boxes xyxy in letterbox pixels, scores and classes of `[4 + C, A]`, after OpenCV's batched NMS."""
    best = rows[4:].max(axis=0)
    anchors = np.flatnonzero(best > CONF)
    found = rows[:, anchors]
    classes, scores = found[4:].argmax(axis=0).astype(np.int64, copy=False), best[anchors]
    if not anchors.size:
        return np.empty((0, 4), np.float32), scores, classes
    sides = found[2:4]
    corner = found[:2] - sides / 2
    kept = cv2.dnn.NMSBoxesBatched(np.concatenate((corner, sides)).T, scores, classes, CONF, IOU)[:MAX_DET]  # type: ignore[arg-type]  # takes arrays, too
    boxes = np.concatenate((corner, corner + sides), dtype=np.float32).T
    return boxes[kept], scores[kept], classes[kept]


def dense_lane(tensors: Tensors, family: Family) -> Lane:
    """One frame or two into the region; the answer is its header and its bytes."""
    buffer, squares = Buffer(), Squares(tensors.size, family)
    head = npy_header(tensors.output.shape[1:])

    def run(frames: Sequence[bytes]) -> bytes:
        for data, square in zip(frames, tensors.squares, strict=True):
            squares.fill(buffer.decode(data), square)
        tensors.run()
        return b"".join((head, tensors.output))  # type: ignore[arg-type]  # an array is a buffer

    return run


def source_lane(tensors: Tensors, family: Family) -> Lane:
    """A map that goes back to the picture's size, bicubic as DPT's post-processing."""
    buffer, squares, heads = Buffer(), Squares(tensors.size, family), dict[tuple[int, ...], bytes]()

    def run(frames: Sequence[bytes]) -> bytes:
        rgb = buffer.decode(frames[0])
        squares.fill(rgb, tensors.squares[0])
        tensors.run()
        height, width = shape = rgb.shape[:2]
        values = cv2.resize(tensors.output[0], (width, height), interpolation=cv2.INTER_CUBIC)
        if shape not in heads:
            heads[shape] = npy_header(shape)
        return b"".join((heads[shape], values.data))

    return run


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The first bytes of a `.npy` file with float32 of that shape (format 1.0)."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def embed_lane(tensors: Tensors, family: Family) -> Lane:
    """The normalised embedding as JSON."""
    buffer, squares = Buffer(), Squares(tensors.size, family)

    def run(frames: Sequence[bytes]) -> bytes:
        squares.fill(buffer.decode(frames[0]), tensors.squares[0])
        tensors.run()
        values = tensors.output[0]
        return orjson.dumps({"embedding": values / np.linalg.norm(values)}, option=orjson.OPT_SERIALIZE_NUMPY)

    return run


def places_lane(tensors: Tensors, family: Family) -> Lane:
    """The five best scenes with their softmax."""
    buffer, squares = Buffer(), Squares(tensors.size, family)

    def run(frames: Sequence[bytes]) -> bytes:
        squares.fill(buffer.decode(frames[0]), tensors.squares[0])
        tensors.run()
        weights = np.exp(tensors.output[0] - tensors.output[0].max())
        best = np.argsort(-weights, kind="stable")[:5]
        shares = weights[best] / weights.sum()
        return orjson.dumps(
            {
                "places": [
                    {"category_id": number, "category": family.labels[number], "probability": share}
                    for number, share in zip(best.tolist(), shares.tolist(), strict=True)
                ]
            }
        )

    return run


LANES: Mapping[str, Callable[[Tensors, Family], Lane]] = {
    "detect": detect_lane,
    "depth": dense_lane,
    "flow": dense_lane,
    "clip_image": embed_lane,
    "places": places_lane,
}


def key_of(case: Case) -> Key:
    """Cases with the same key share lanes."""
    return case.branch, case.at_source


class Loop:
    """A closed loop over lanes of one process, each with a thread of its own."""

    def __init__(self, triton_url: str) -> None:
        self._rig = Rig(triton_url)
        self._lanes: dict[Key, list[Lane]] = {}
        self._frames: dict[str, list[list[bytes]]] = {}

    def run(self, name: str, in_flight: int, seconds: float) -> dict[str, Any]:
        """Requests, wall and CPU seconds, and every latency in ms."""
        case = CASES[name]
        lanes = self._lanes.setdefault(key_of(case), [])
        while len(lanes) < in_flight:
            lanes.append(self._rig.lane(case))
        frames = self._frames.setdefault(name, case.frames())
        samples: list[list[float]] = [[] for _ in range(in_flight)]
        cpu, started = time.process_time(), time.perf_counter()
        threads = [
            threading.Thread(target=_drive, args=(lane, frames, started + seconds, own))
            for lane, own in zip(lanes, samples, strict=False)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.perf_counter() - started
        return {
            "requests": sum(map(len, samples)),
            "wall_s": wall,
            "cpu_s": time.process_time() - cpu,
            "samples_ms": [round(ms, 4) for own in samples for ms in own],
        }

    def answer(self, name: str) -> bytes:
        """One answer, to be checked."""
        self.run(name, 1, 0)
        return self._lanes[key_of(CASES[name])][0](self._frames[name][0])

    def close(self) -> None:
        self._rig.close()


def _drive(lane: Lane, frames: Sequence[Sequence[bytes]], limit: float, samples: list[float]) -> None:
    """Requests until `limit`, one at least."""
    while True:
        for picture in frames:
            before = time.perf_counter()
            lane(picture)
            after = time.perf_counter()
            samples.append((after - before) * 1000)
            if after >= limit:
                return


def main() -> None:
    """Measure once, or serve orders."""
    cv2.setNumThreads(1)
    malloc.keep_pages()  # or every frame would be mapped again
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--triton-url", required=True)
    parser.add_argument("--cases", default=",".join(MAIN), help=f"or main, all, patterns; {', '.join(CASES)}")
    parser.add_argument("--in-flight", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    with contextlib.closing(Loop(options.triton_url)) as loop:
        if options.serve:
            _serve(loop)
            return
        for name in select(options.cases):
            loop.run(name, options.in_flight, 0.5)
            row = loop.run(name, options.in_flight, options.seconds)
            print(
                f"{name:24}{row['requests'] / row['wall_s']:8.1f} requests/s"
                f"{1000 * row['cpu_s'] / row['requests']:8.2f} ms CPU"
                f"{statistics.median(row['samples_ms']):8.2f} ms p50"
            )


def _serve(loop: Loop) -> None:
    for order in _orders():
        if order.get("answer"):
            reply: dict[str, Any] = {"answer": loop.answer(order["case"]).hex()}
        else:
            reply = loop.run(order["case"], order["in_flight"], order["seconds"])
        print(json.dumps(reply), flush=True)


def _orders() -> Iterator[dict[str, Any]]:
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        yield json.loads(line)


if __name__ == "__main__":
    main()
