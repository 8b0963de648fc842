"""Measurements of each curve, and the services that they need."""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from benchmarks.common import null_models, services, test_videos
from benchmarks.common.cases import JSON, jpeg, request
from benchmarks.common.http_calls import asked, lines
from benchmarks.common.http_load import Connection, ask
from benchmarks.growth.load import Outcome, drive

DETECT, TEXT = "yolo11n_640", "clip_text"
OTHER = "yolo11s_640"  # whose number of boxes is changed
SIZES = {
    "VGA": (640, 480),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "4K": (3840, 2160),
    "8K": (7680, 4320),
}
CALLERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PROMPTS = (1, 10, 29, 100, 300, 1000)
BOXES = (0, 1, 10, 50, 100, 300)
FILMS_S = (10, 30, 120, 600)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Effort:
    """Seconds a point and load; `quick`: fewer points."""

    seconds: float = 2.0
    quick: bool = False

    def of(self, points: Sequence[Any]) -> list[Any]:
        """The points, or the ends and the middle."""
        return [points[0], points[len(points) // 2], points[-1]] if self.quick else list(points)


class Ground:
    """A null Triton and a gateway over it, as long as the `with` lasts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.models = null_models.build(self.folder / "models", [DETECT, OTHER, TEXT])
        with contextlib.ExitStack() as stack:
            self._triton = stack.enter_context(services.triton(self.models, self.folder / "triton.log"))
            self.triton_url = self._triton.grpc_url
            self.port, self.served = stack.enter_context(self.gateway())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gateway(self, *arguments: str) -> contextlib.AbstractContextManager[tuple[int, psutil.Process]]:
        """Another gateway over the same Triton."""
        log = self.folder / f"gateway{'-'.join(arguments)}.log"
        return services.gateway(self.triton_url, self.models, log, arguments)

    def rebuild(self, boxes: int) -> None:
        """Let Triton reload the other detector, with so many boxes; return once the gateway serves that."""
        null_models.build(self.models, [OTHER], boxes)
        port = int(self._triton.http_url.rpartition(":")[2])
        asked(port, "POST", f"/v2/repository/models/{OTHER}/load", b"{}")
        wanted, limit = detection(SIZES["VGA"], OTHER)[0], time.monotonic() + 30
        while len(json.loads(ask(self.port, wanted))["detections"]) != boxes:
            if time.monotonic() > limit:
                raise RuntimeError(f"{OTHER} doesn't answer {boxes} boxes")
            time.sleep(0.2)


def detection(size: tuple[int, int], branch: str = DETECT, count: int = 2) -> list[bytes]:
    """Requests with different pictures of one size."""
    path, headers = f"/v1/detect?branch={branch}", {"Content-Type": "image/jpeg", "Accept": JSON}
    return [request(path, jpeg(*size, seed), headers) for seed in range(count)]


def family(process: psutil.Process) -> list[psutil.Process]:
    """The process and what it has started."""
    return [process, *process.children(recursive=True)]


def cpu_s(process: psutil.Process) -> float:
    """User and system time of all of them, ended ones included."""
    return sum(sum(one.cpu_times()[:4]) for one in family(process))


def rss_mb(process: psutil.Process) -> float:
    """Resident memory of all of them."""
    total = 0
    for one in family(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return round(total / 1e6, 1)


def loaded(port: int, served: psutil.Process, contents: Sequence[bytes], at_once: int, seconds: float) -> Row:
    """One point under load."""
    drive(port, contents, at_once, min(0.3, seconds))
    before = cpu_s(served)
    outcome: Outcome = drive(port, contents, at_once, seconds)
    used, count = cpu_s(served) - before, max(1, len(outcome.samples_ms))
    ordered = sorted(outcome.samples_ms) or [float("nan")]
    return {
        "p50_ms": round(statistics.median(ordered), 2),
        "p95_ms": round(ordered[int(0.95 * (len(ordered) - 1))], 2),
        "per_s": round(len(outcome.samples_ms) / outcome.wall_s, 1),
        "cpu_ms": round(1000 * used / count, 2),
        "refused": outcome.refused,
    }


def alone_and_four(ground: Ground, contents: Sequence[bytes], effort: Effort) -> Row:
    """`p50_ms` and `cpu_ms` of one request after another, `per_s` of four at once, memory after that."""
    alone = loaded(ground.port, ground.served, contents, 1, effort.seconds)
    four = loaded(ground.port, ground.served, contents, 4, effort.seconds)
    return {
        "p50_ms": alone["p50_ms"],
        "cpu_ms": alone["cpu_ms"],
        "per_s": four["per_s"],
        "cpu_ms_4": four["cpu_ms"],
        "rss_mb": rss_mb(ground.served),
    }


def sizes(ground: Ground, effort: Effort) -> list[Row]:
    """JPEGs from VGA to 8K."""
    rows = []
    for name in effort.of(list(SIZES)):
        contents = detection(SIZES[name])
        width, height = SIZES[name]
        row = {"size": name, "megapixels": round(width * height / 1e6, 2)}
        row["body_kb"] = round(len(contents[0]) / 1e3)
        rows.append(row | alone_and_four(ground, contents, effort))
    return rows


def in_flight(ground: Ground, effort: Effort) -> list[Row]:
    """Callers that each wait for their answer; who is refused (429) waits 100 ms."""
    contents, rows = detection(SIZES["VGA"], count=4), []
    for callers in effort.of(CALLERS):
        row = loaded(ground.port, ground.served, contents, callers, effort.seconds)
        rows.append({"in_flight": callers, **row, "rss_mb": rss_mb(ground.served)})
    return rows


def prompts(ground: Ground, effort: Effort) -> list[Row]:
    """Never seen before: a request each, one after another; all in one request; and that request again."""
    numbers, rows = itertools.count(), []
    with contextlib.closing(Connection(ground.port)) as connection:
        connection.socket.setblocking(True)
        for count in effort.of(PROMPTS):
            repeats = 3 if count >= 300 or effort.quick else 7
            rows.append(_prompts(ground, connection, numbers, count, repeats))
    return rows


def _prompts(ground: Ground, connection: Connection, numbers: Iterator[int], count: int, repeats: int) -> Row:
    taken: dict[str, list[float]] = {"one_by_one_ms": [], "cold_ms": [], "warm_ms": []}
    cpu: list[float] = []
    for _ in range(repeats):
        alone = [_texts([prompt]) for prompt in _fresh(numbers, count)]
        taken["one_by_one_ms"].append(sum(_timed(connection, content) for content in alone))
        content, before = _texts(_fresh(numbers, count)), cpu_s(ground.served)
        taken["cold_ms"].append(_timed(connection, content))
        cpu.append(1000 * (cpu_s(ground.served) - before))
        taken["warm_ms"].append(min(_timed(connection, content) for _ in range(3)))
    row: Row = {"prompts": count}
    row |= {name: round(statistics.median(values), 2) for name, values in taken.items()}
    row["cold_cpu_ms"] = round(statistics.fmean(cpu), 1)
    for name, slow, quick in (("pipelined", "one_by_one_ms", "cold_ms"), ("cached", "cold_ms", "warm_ms")):
        ratios = [a / b for a, b in zip(taken[slow], taken[quick], strict=True)]
        row[f"{name}_times"] = round(statistics.median(ratios), 2)
    return row | {"rss_mb": rss_mb(ground.served)}


def _fresh(numbers: Iterator[int], count: int) -> list[str]:
    """Prompts that were never sent."""
    return [f"a photo of thing number {number}" for number in itertools.islice(numbers, count)]


def _texts(texts: Sequence[str]) -> bytes:
    headers = {"Content-Type": JSON, "Accept": JSON}
    return request("/v1/clip/text", json.dumps({"prompts": texts}).encode(), headers)


def _timed(connection: Connection, content: bytes) -> float:
    """Milliseconds until the answer is complete."""
    began = time.perf_counter()
    connection.start(content)
    while not connection.receive():
        pass
    return 1000 * (time.perf_counter() - began)


def boxes(ground: Ground, effort: Effort) -> list[Row]:
    """Boxes in the answer, each with two weaker ones that NMS takes away."""
    contents, rows = detection(SIZES["VGA"], OTHER), []
    for count in effort.of(BOXES):
        ground.rebuild(count)
        rows.append({"boxes": count, **alone_and_four(ground, contents, effort)})
    return rows


def workers(ground: Ground, effort: Effort) -> list[Row]:
    """The service's processes, by callers at once."""
    rows = []
    for count in (1, 2):
        with ground.gateway("--workers", str(count)) as (port, served):
            for size in ("VGA", "1080p"):
                for at_once in (1, 4, 16):
                    contents = detection(SIZES[size])
                    row = loaded(port, served, contents, at_once, effort.seconds)
                    point = {"workers": count, "size": size, "in_flight": at_once}
                    rows.append({**point, **row, "rss_mb": rss_mb(served)})
    return rows


def videos(ground: Ground, effort: Effort) -> list[Row]:
    """A video as NDJSON, of 640 x 480, every 5th frame: frames decoded a second, and memory meanwhile."""
    rows = []
    for seconds in effort.of(FILMS_S)[: 2 if effort.quick else None]:
        path = test_videos.make(ground.folder / f"{seconds}.mp4", 640, 480, seconds)
        with _peaks(ground.served) as peaks:
            before, began = cpu_s(ground.served), time.perf_counter()
            *_, last = lines(ground.port, f"/v1/detect?branch={DETECT}&every=5", path)
            wall, used = time.perf_counter() - began, cpu_s(ground.served) - before
        summary = json.loads(last)["summary"]
        decoded = summary["decoded"]
        rows.append(
            {
                "seconds": seconds,
                "sampled": summary["frames"],
                "decoded_per_s": round(decoded / wall, 1),
                "cpu_ms": round(1000 * used / decoded, 2),
                **peaks,
                "rss_mb": rss_mb(ground.served),
            }
        )
        path.unlink()
    return rows


@contextlib.contextmanager
def _peaks(served: psutil.Process) -> Iterator[Row]:
    """Most memory of the service and of its decoder while something runs; complete afterwards."""
    peaks: Row = {"peak_mb": 0.0, "decoder_peak_mb": 0.0}
    over, mine = threading.Event(), served.cmdline()

    def look() -> None:
        while not over.wait(0.05):
            peaks["peak_mb"] = max(peaks["peak_mb"], round(served.memory_info().rss / 1e6, 1))
            for child in served.children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if child.cmdline() == mine:
                        continue  # just forked: the service's own memory
                    decoder = round(child.memory_info().rss / 1e6, 1)
                    peaks["decoder_peak_mb"] = max(peaks["decoder_peak_mb"], decoder)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()
