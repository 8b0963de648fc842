"""Broken input by the ten thousand: every decoder, every parser, and the service itself.

    make chaos CHAOS=fuzz CHAOS_ARGS='--cases 100000 --seed 0'

Whole pictures, forms, profiles, prompts, tracker states and videos are damaged at random (bits turned over, pieces
cut out, doubled or swapped, lengths made huge) and given to what reads them. Whatever is raised must be one of the
gateway's own errors, in time and within memory; over HTTP nothing may be a 500. Prints a table; any failure makes it
fail, with the case written to out/fuzz/.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from support import videos
from support.analysis import PROFILES
from support.models import repository as test_repository
from support.paths import ROOT
from support.servers.gateway import client, png, scene

from app.api.request.json_body import parsed
from app.api.request.multipart import FormReader, Memory
from app.api.request.prompts import Prompts
from app.errors import GatewayError
from app.media.image import ImageLimits, decode_image
from app.media.video.reader import Sampling, VideoLimits, VideoReader
from app.vision.bytetrack import ByteTracker

Random = np.random.Generator
LIMITS = ImageLimits(max_pixels=4_000_000)
SLOWEST_S = 5.0
MEMORY_MB = 1500  # of the whole script: 4 million pixels in RGB are 12 MB


def damaged(data: bytes, random: Random) -> bytes:
    """One to eight injuries."""
    body = bytearray(data)
    for _ in range(int(random.integers(1, 9))):
        if not body:
            break
        at = int(random.integers(len(body)))
        size = int(random.integers(1, 1 + min(64, len(body))))
        match int(random.integers(7)):
            case 0:
                body[at] ^= 1 << int(random.integers(8))
            case 1:
                del body[at : at + size]
            case 2:
                body[at:at] = body[at : at + size]
            case 3:
                body[at : at + size] = random.bytes(len(body[at : at + size]))
            case 4:
                body[at : at + 4] = random.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"])
            case 5:
                del body[at:]
            case _:
                body[at:at] = bytes(size)
    return bytes(body)


def pictures() -> list[bytes]:
    rgb = scene(64, 48, (0, 8, 8, 16))
    rgb[::2, ::3] ^= 37
    found = []
    options: dict[str, list[dict[str, Any]]] = {
        "JPEG": [{}, {"progressive": True}],
        "WEBP": [{}, {"lossless": True}],
    }
    kinds = [(name, how) for name in ("JPEG", "PNG", "WEBP", "BMP") for how in options.get(name, [{}])]
    for name, how in kinds:
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, name, **how)
        found.append(buffer.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", exif=exif)
    return [*found, buffer.getvalue()]


def forms() -> list[bytes]:
    head = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return [
        head + b"abc\r\n--XX--\r\n",
        head + b"a\r\n" + head + b"\r\n--X\r\n--XX--\r\n",
        head.replace(b"file", b"prompt") + b"--XX--",
    ]


def read_form(data: bytes) -> None:
    reader = FormReader(b"XX", {"file": 4, "prompt": 4}, lambda *_: Memory(), {"conf"})
    for at in range(0, len(data), 7):
        reader.feed(data[at : at + 7])
    reader.finish()


def read_profile(data: bytes) -> None:
    PROFILES.parse(data.decode("utf-8", "replace"))


def restore(data: bytes) -> None:
    with contextlib.suppress(ValueError):  # documented; callers translate it
        ByteTracker.restore(data)


def states() -> list[bytes]:
    tracker = ByteTracker()
    for number in range(5):
        boxes = np.array([[number, 0, number + 30, 40], [100, 100, 140, 160]], np.float32)
        tracker.update(boxes, np.array([0.9, 0.8], np.float32), np.array([0, 1], np.int32), number / 10)
    return [tracker.state()]


def read_video(data: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        limits = VideoLimits(max_pixels=4_000_000, stall_s=5)
        with VideoReader(file, Sampling(), limits, 3) as reader:
            for frame in reader:
                frame.release()


def small_videos() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        paths = [videos.count(Path(folder) / name, 6) for name in ("a.mp4", "b.mkv")]
        paths.append(videos.count(Path(folder) / "c.avi", 6, codec="mpeg4"))
        return [path.read_bytes() for path in paths]


@dataclass(slots=True)
class Row:
    cases: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    slowest_ms: float = 0.0
    failures: list[str] = field(default_factory=list)


def fuzz(name: str, seeds: list[bytes], read: Callable[[bytes], Any], cases: int, random: Random) -> Row:
    """Give so many damaged cases to one reader."""
    row = Row()
    for number in range(cases):
        data = damaged(seeds[number % len(seeds)], random)
        started = time.perf_counter()
        try:
            read(data)
            code = "read"
        except GatewayError as error:
            code = error.code
        except Exception as error:  # noqa: BLE001  # this is what is looked for
            code = f"FAILED {type(error).__name__}"
            keep(row, name, number, data, error)
        seconds = time.perf_counter() - started
        if seconds > SLOWEST_S:
            keep(row, name, number, data, TimeoutError(f"{seconds:.1f} s"))
        row.cases += 1
        row.codes[code] += 1
        row.slowest_ms = max(row.slowest_ms, seconds * 1000)
    return row


def keep(row: Row, name: str, number: int, data: bytes, error: Exception) -> None:
    folder = ROOT / "out" / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name.replace(' ', '-')}-{number}.bin"
    path.write_bytes(data)
    row.failures.append(f"{path}: {type(error).__name__}: {str(error)[:200]}")


def over_http(cases: int, random: Random) -> Row:
    """Damaged bodies to every route of a service in this process."""
    row = Row()
    bodies = [*pictures(), png(scene(64, 64)), *forms(), json.dumps({"prompts": ["a cat", "b"]}).encode()]
    names = (*test_repository.DETECTORS, *test_repository.DEPTH, *test_repository.OTHERS)
    routes = [
        f"/v1/{name}" for name in ("detect", "flow", "clip/text", "clip/image", "clip/similarity", "places")
    ]
    routes += ["/v1/videos", "/v1/depth?branch=256", "/v1/detect?session=s&timestamp=1"]
    kinds = ["image/jpeg", "multipart/form-data; boundary=XX", "application/json", "video/mp4", ""]
    with tempfile.TemporaryDirectory() as folder:
        repository = test_repository.build(Path(folder) / "models", names)
        with client(repository, max_pixels=4_000_000, videos_folder=Path(folder) / "videos") as gateway:
            for number in range(cases):
                data = damaged(bodies[int(random.integers(len(bodies)))], random)
                kind = kinds[int(random.integers(len(kinds)))]
                started = time.perf_counter()
                response = gateway.post(
                    routes[number % len(routes)], content=data, headers={"content-type": kind}
                )
                seconds = time.perf_counter() - started
                row.cases += 1
                row.codes[str(response.status_code)] += 1
                row.slowest_ms = max(row.slowest_ms, seconds * 1000)
                clean = response.status_code in (200, 202) or "code" in response.json()
                if response.status_code == 500 or not clean or seconds > SLOWEST_S:
                    keep(
                        row,
                        "http",
                        number,
                        data,
                        RuntimeError(f"{response.status_code} {response.text[:200]}"),
                    )
    return row


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random = np.random.default_rng(given.seed)
    profile = (ROOT / "profiles" / "detect_embedded.yaml").read_bytes()
    shares: list[tuple[str, float, Callable[[int], Row]]] = [
        (
            "pictures",
            0.5,
            lambda n: fuzz("pictures", pictures(), lambda d: decode_image(d, LIMITS), n, random),
        ),
        ("forms", 0.2, lambda n: fuzz("forms", forms(), read_form, n, random)),
        (
            "prompts",
            0.1,
            lambda n: fuzz(
                "prompts",
                [b'{"prompts": ["a", "\\u00e4"]}'],
                lambda data: parsed(data, Prompts, "prompts"),
                n,
                random,
            ),
        ),
        ("tracker states", 0.1, lambda n: fuzz("tracker states", states(), restore, n, random)),
        ("profiles", 0.05, lambda n: fuzz("profiles", [profile], read_profile, n, random)),
        ("over HTTP", 0.047, lambda n: over_http(n, random)),
        ("videos", 0.003, lambda n: fuzz("videos", small_videos(), read_video, n, random)),
    ]
    failures: list[str] = []
    total = 0
    print(f"{'what':15} {'cases':>7} {'slowest ms':>11} {'peak MB':>8}  outcomes")
    for name, share, run in shares:
        row = run(max(1, round(given.cases * share)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        outcomes = ", ".join(f"{code} {count}" for code, count in row.codes.most_common())
        print(f"{name:15} {row.cases:7} {row.slowest_ms:11.1f} {peak:8.0f}  {outcomes}", flush=True)
        failures += row.failures
        total += row.cases
        if peak > MEMORY_MB:
            failures.append(f"{name}: {peak:.0f} MB")
    print(f"{total} cases, {len(failures)} failures")
    for line in failures[:20]:
        print("!", line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
