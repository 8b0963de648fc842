"""Steps of every peer between its framework and Triton: Pillow, numpy and tritonclient as their documents use them.

Runs in the peers' own virtual environments, so it imports nothing of the project.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from PIL import Image

DETECT, DETECT_SIZE = "yolo11n_640", 640
DEPTH, DEPTH_SIZE = "midas_512", 512
FLOW, FLOW_SIZE = "raft_512", 512
CLIP, PLACES, CROP_SIZE = "clip_image_224", "places365_resnet50_224", 224
PLACES_SHORT_SIDE = 256
# For depth: the reference's bicubic, or the cheaper filter that people take for it.
DEPTH_FILTER = Image.Resampling[os.environ.get("DEPTH_FILTER", "BICUBIC")]
CONF, IOU, MAX_DET = 0.25, 0.7, 300
PAD = 114
Placement = tuple[float, int, int]


def picture(data: bytes) -> Image.Image:
    """Encoded bytes to RGB."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def letterbox(image: Image.Image) -> tuple[np.ndarray, Placement]:
    """`[1, 3, 640, 640]` float32 in `[0, 1]`, and where the picture lies in it: scale, left, top."""
    scale = min(DETECT_SIZE / image.width, DETECT_SIZE / image.height, 1.0)
    size = (round(image.width * scale), round(image.height * scale))
    left, top = (DETECT_SIZE - size[0]) // 2, (DETECT_SIZE - size[1]) // 2
    square = Image.new("RGB", (DETECT_SIZE, DETECT_SIZE), (PAD, PAD, PAD))
    resized = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)
    square.paste(resized, (left, top))
    pixels = np.asarray(square, dtype=np.float32) / 255.0
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), (scale, left, top)


def square(image: Image.Image, resample: Image.Resampling = DEPTH_FILTER) -> np.ndarray:
    """`[1, 512, 512, 3]` uint8."""
    size = (DEPTH_SIZE, DEPTH_SIZE)
    resized = image if image.size == size else image.resize(size, resample)
    return np.asarray(resized)[None]


def middle(image: Image.Image, short: int, resample: Image.Resampling) -> np.ndarray:
    """`[1, 224, 224, 3]` uint8: the middle of the picture whose shorter side is `short`, as torchvision has it."""
    width, height = image.size
    size = (short, short * height // width) if width <= height else (short * width // height, short)
    resized = image.resize(size, resample)
    left, top = round((size[0] - CROP_SIZE) / 2), round((size[1] - CROP_SIZE) / 2)
    return np.asarray(resized.crop((left, top, left + CROP_SIZE, top + CROP_SIZE)))[None]


def call(client: Any, model: str, arrays: dict[str, np.ndarray], output: str = "OUTPUT__0") -> np.ndarray:
    """One inference with `tritonclient.grpc`, tensors as bytes."""
    import tritonclient.grpc as grpcclient  # noqa: PLC0415  # KServe's peer has a client of its own

    tensors = []
    for name, array in arrays.items():
        kind = "UINT8" if array.dtype == np.uint8 else "FP32"
        tensors.append(grpcclient.InferInput(name, list(array.shape), kind))
        tensors[-1].set_data_from_numpy(array)
    result = client.infer(model_name=model, inputs=tensors, outputs=[grpcclient.InferRequestedOutput(output)])
    answer: np.ndarray = result.as_numpy(output)
    return answer


def boxes(output0: np.ndarray, placement: Placement) -> np.ndarray:
    """`[n, 6]` float32: xyxy in source pixels, score, class; greedy NMS a class."""
    rows = output0[0].T
    scores = rows[:, 4:].max(axis=1)
    keep = scores > CONF
    rows, scores = rows[keep], scores[keep]
    classes = rows[:, 4:].argmax(axis=1)
    corners = np.concatenate((rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2), axis=1)
    kept = nms(corners + 4096.0 * classes[:, None], scores)
    scale, left, top = placement
    corners = (corners[kept] - np.array([left, top, left, top])) / scale
    return np.concatenate((corners, scores[kept, None], classes[kept, None]), axis=1).astype(np.float32)


def nms(corners: np.ndarray, scores: np.ndarray) -> list[int]:
    """Rows kept, best first."""
    order = np.argsort(-scores)
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    kept: list[int] = []
    while order.size and len(kept) < MAX_DET:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        low = np.maximum(corners[best, :2], corners[rest, :2])
        high = np.minimum(corners[best, 2:], corners[rest, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        order = rest[shared / (areas[best] + areas[rest] - shared) <= IOU]
    return kept


def answer(found: np.ndarray, width: int, height: int) -> dict[str, Any]:
    """The gateway's fields without its provenance."""
    return {
        "detections": [
            {"box": row[:4], "score": row[4], "class_id": int(row[5]), "class_name": str(int(row[5]))}
            for row in found.tolist()
        ],
        "image": {"width": width, "height": height},
    }


def npy(values: np.ndarray) -> bytes:
    """One array in NumPy's format."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def detect(client: Any, data: bytes | Image.Image) -> dict[str, Any]:
    """A whole detection."""
    image = picture(data) if isinstance(data, bytes) else data.convert("RGB")
    tensor, placement = letterbox(image)
    output0 = call(client, DETECT, {"images": tensor}, "output0")
    return answer(boxes(output0, placement), image.width, image.height)


def depth(client: Any, data: bytes | Image.Image) -> bytes:
    """A whole depth map, as npy."""
    image = picture(data) if isinstance(data, bytes) else data.convert("RGB")
    return npy(call(client, DEPTH, {"INPUT__0": square(image)})[0])


def flow(client: Any, first: bytes, second: bytes) -> bytes:
    """A whole flow field between two frames, as npy."""
    squares = [square(picture(data), Image.Resampling.BILINEAR) for data in (first, second)]
    return npy(call(client, FLOW, dict(zip(("INPUT0__0", "INPUT1__0"), squares, strict=True)))[0])


def embedding(client: Any, data: bytes) -> dict[str, Any]:
    """A whole embedding of a picture, normalised."""
    tensor = middle(picture(data), CROP_SIZE, Image.Resampling.BICUBIC)
    values = call(client, CLIP, {"INPUT__0": tensor})[0]
    return {"embedding": (values / np.linalg.norm(values)).tolist()}


def places(client: Any, data: bytes) -> dict[str, Any]:
    """The five best scenes."""
    tensor = middle(picture(data), PLACES_SHORT_SIDE, Image.Resampling.BILINEAR)
    logits = call(client, PLACES, {"INPUT__0": tensor})[0]
    weights = np.exp(logits - logits.max())
    shares = weights / weights.sum()
    best = np.argsort(-shares)[:5]
    rows = [{"category_id": int(i), "category": str(i), "probability": float(shares[i])} for i in best]
    return {"places": rows}
