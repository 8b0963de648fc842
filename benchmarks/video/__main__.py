"""Detection in videos through the gateway, beside the fastest decoding and the fastest inference, in one run.

    python -m benchmarks.video [--rounds 3] [--short] [--json FILE]

Four ways in turn, with models that compute next to nothing on a real Triton, so that what lies around them shows:

- `decode`: a bare PyAV loop that gives RGB frames of the same file, one thread, nothing else running;
- `model`: the straight loop of `speed/limit.py` over decoded frames: letterbox into shared memory, call, NMS, JSON; as
  many in flight as the gateway has leases;
- `ndjson`: `POST /v1/detect` with the video as its body, frames counted as their lines come;
- `job`: `POST /v1/videos` with a profile of detection alone, by its own `wall_s`, so with the decoder's start, the
  checkpoints and the artefacts.

`ratio` compares frames a second with the lesser of the first two; both had the whole machine. Where the cores are what
all share, `cpu_bound` says what they allow at most: cores / (decode + model + Triton, CPU ms a sampled frame of the
first two ways), and `of_cpu_bound` the share of it (of the lesser of that and of the first two). `cpu_share` is that
sum over the sum of all that was used here, client included: what of that bound could be reached if nothing ever waited,
and the one ratio that other work on the machine hardly moves.

Cases of all five components have two ways: `straight`, the loop of `components.py` over the same frames of the same
file, decoded by the bare loop in the same process; and `job`. There `ratio` compares their frames a second, starts
included, and `cpu_share` their CPU time, Triton's included.

`--short` takes a third of the seconds and one round: below four minutes, also on a machine that has other work.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import orjson
import psutil
from numpy.typing import NDArray

from app.media.video.reader import Sampling
from benchmarks.common import null_models, services, test_videos
from benchmarks.common.environment import environment
from benchmarks.common.http_calls import asked, lines
from benchmarks.speed.limit import Planes, Rig, Tensors, suppress
from benchmarks.video import components, decode
from routing import catalogue as catalogues
from routing.catalogue import Branch, Family

BRANCH = "yolo11n_640"
LEASES = 4
KEPT = 16
PROFILE = """schema_version: 1
sampling: {{every: {every}}}
components: {{core_object_detections: {{variant: n, branch: {branch}}}}}
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A film, and which of its frames are looked at; with `fps` by all five components."""

    name: str
    width: int
    height: int
    seconds: float
    every: int | None = None
    fps: float | None = None

    @property
    def sampling(self) -> Sampling:
        return Sampling(fps=self.fps, every=self.every)

    @property
    def profile(self) -> str:
        """The profile of the job."""
        if self.fps is not None:
            return components.PROFILE.format(fps=self.fps)
        return PROFILE.format(every=self.every, branch=BRANCH)

    @property
    def ways(self) -> tuple[str, ...]:
        return WAYS if self.fps is None else ("straight", "job")


CASES = (
    Case("640x480", 640, 480, 40, 1),
    Case("640x480, every=10", 640, 480, 80, 10),
    Case("1080p", 1920, 1080, 16, 1),
    Case("1080p, every=10", 1920, 1080, 16, 10),
    Case("640x480, five components at 2 fps", 640, 480, 80, fps=2),
    Case("1080p, five components at 2 fps", 1920, 1080, 40, fps=2),
)
# What `--short` leaves out, and the share of each film that it takes.
_LONG, _SHORT_SHARE = ("640x480, every=10",), 1 / 3


@dataclass(frozen=True, slots=True)
class Run:
    """Frames a second after the first one, and CPU ms a frame of each part."""

    fps: float
    cpu_ms: Mapping[str, float]
    frames: int


class Clocks:
    """CPU seconds that the parts have used."""

    def __init__(self, gateway: psutil.Process, triton: Sequence[psutil.Process]) -> None:
        self._gateway, self._triton = gateway, triton

    def read(self) -> dict[str, float]:
        """`decoder` are processes that the gateway has started and that have ended."""
        times = [self._gateway.cpu_times()]
        return {
            "client": time.process_time(),
            "gateway": sum(one.user + one.system for one in times),
            "decoder": sum(one.children_user + one.children_system for one in times),
            "triton": sum(sum(process.cpu_times()[:2]) for process in self._triton),
        }

    def below(self) -> int:
        """Processes that the gateway has started."""
        return len(self._gateway.children(recursive=True))

    def used(self, before: Mapping[str, float], frames: int) -> dict[str, float]:
        """CPU ms a frame since `before`."""
        return {name: 1000 * (now - before[name]) / frames for name, now in self.read().items()}


class Stand:
    """The ways, each `(case, file) -> Run`."""

    def __init__(self, port: int, clocks: Clocks, triton_url: str) -> None:
        self._port, self._clocks = port, clocks
        self.addresses = triton_url, f"http://127.0.0.1:{port}"
        self._below = clocks.below()
        self.rig = Rig(triton_url)
        catalogue = catalogues.load()
        branch = catalogue.branches[BRANCH]
        self._lanes = [Lane(self.rig, branch, catalogue["detect"]) for _ in range(LEASES)]
        self._component_lanes = [components.ComponentsLane(self.rig, catalogue) for _ in range(LEASES)]

    def decode(self, case: Case, path: Path) -> Run:
        before = self._clocks.read()
        frames = decode.bare(path, case.sampling)
        next(frames)
        began = time.perf_counter()
        count = sum(1 for _ in frames)
        seconds = time.perf_counter() - began
        return Run(count / seconds, self._clocks.used(before, count + 1), count + 1)

    def model(self, case: Case, path: Path) -> Run:
        pictures: list[Any] = list(itertools.islice(decode.bare(path, Sampling(every=3)), KEPT))
        count = round(case.seconds * test_videos.RATE)
        numbers = iter(range(count))  # its next is atomic
        before, began = self._clocks.read(), time.perf_counter()
        threads = [threading.Thread(target=_work, args=(lane, pictures, numbers)) for lane in self._lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        return Run(count / seconds, self._clocks.used(before, count), count)

    def straight(self, case: Case, path: Path) -> Run:
        before, began = self._clocks.read(), time.perf_counter()
        count = components.straight(self._component_lanes, decode.bare(path, case.sampling))
        seconds = time.perf_counter() - began
        return Run(count / seconds, self._clocks.used(before, count), count)

    def ndjson(self, case: Case, path: Path) -> Run:
        before = self._clocks.read()
        times: list[float] = []
        for line in lines(self._port, f"/v1/detect?branch={BRANCH}&every={case.every}", path):
            if line.startswith(b'{"frame"'):
                if b'"error"' in line:
                    raise RuntimeError(line[:500].decode())
                times.append(time.perf_counter())
        self._settle()
        rate = (len(times) - 1) / (times[-1] - times[0])
        return Run(rate, self._clocks.used(before, len(times)), len(times))

    def job(self, case: Case, path: Path) -> Run:
        before = self._clocks.read()
        view = submit(self._port, case.profile, path)
        while view["state"] not in ("done", "failed"):
            time.sleep(0.05)
            view = asked(self._port, "GET", view["links"]["self"])
        if view["state"] == "failed":
            raise RuntimeError(json.dumps(view["error"]))
        self._settle()
        frames = view["manifest"]["frames"]["sampled"]
        used = self._clocks.used(before, frames)
        asked(self._port, "DELETE", view["links"]["self"])
        return Run(frames / view["manifest"]["wall_s"], used, frames)

    def _settle(self) -> None:
        """Until the decoder's process has ended, and its time is known."""
        limit = time.monotonic() + 10
        while self._clocks.below() > self._below:
            if time.monotonic() > limit:
                raise RuntimeError("the decoder didn't end")
            time.sleep(0.01)


class Lane:
    """One frame in flight of the straight loop."""

    def __init__(self, rig: Rig, branch: Branch, family: Family) -> None:
        self._tensors = Tensors(rig, branch)
        self._planes = Planes(self._tensors.inputs[0][0], self._tensors.size)
        self._names = family.labels

    def __call__(self, index: int, rgb: NDArray[Any]) -> bytes:
        geometry = self._planes.fill(rgb)
        self._tensors.run()
        boxes, scores, classes = suppress(self._tensors.output[0])
        found = zip(geometry.undo(boxes).tolist(), scores.tolist(), classes.tolist(), strict=True)
        rows = [
            {"box": box, "score": score, "class_id": number, "class_name": self._names[number]}
            for box, score, number in found
        ]
        return orjson.dumps({"frame": index, "detections": rows})


def _work(lane: Lane, pictures: Sequence[Any], numbers: Iterator[int]) -> None:
    for number in numbers:
        lane(number, pictures[number % len(pictures)])


def submit(port: int, profile: str, video: Path) -> Any:
    """A job's first view."""
    boundary = "video-benchmark"
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{content}'
        for name, more, content in (("profile", "", profile + "\r\n"), ("file", '; filename="film.mp4"', ""))
    )
    body = head.encode() + video.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    return asked(port, "POST", "/v1/videos", body, f"multipart/form-data; boundary={boundary}")


WAYS = ("decode", "model", "ndjson", "job")


def measure(ways: Stand, case: Case, path: Path, rounds: int) -> dict[str, Any]:
    """All ways by turns; of each its median, and the ratios of each round's."""
    runs: dict[str, list[Run]] = {way: [] for way in case.ways}
    for turn in range(rounds + 1):  # the first doesn't count
        for way in case.ways:
            run = getattr(ways, way)(case, path)
            if turn:
                runs[way].append(run)
    row: dict[str, Any] = {"frames": runs["job"][0].frames, "every": case.every, "fps": case.fps}
    for way, of in runs.items():
        parts = {part: _median(run.cpu_ms[part] for run in of) for part in of[0].cpu_ms}
        row[way] = {"fps": _median(run.fps for run in of), "cpu_ms": parts}
    return row | (_ratios(row, runs) if case.fps is None else _component_ratios(row, runs))


def _component_ratios(row: Mapping[str, Any], runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    pairs = zip(runs["job"], runs["straight"], strict=True)
    used, straight = (sum(row[way]["cpu_ms"].values()) for way in ("job", "straight"))
    return {
        "job_ratio": _median(job.fps / limit.fps for job, limit in pairs),
        "job_cpu_share": round(straight / used, 3),
    }


def _ratios(row: Mapping[str, Any], runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    straight = row["decode"]["cpu_ms"]["client"]
    straight += row["model"]["cpu_ms"]["client"] + row["model"]["cpu_ms"]["triton"]
    bound = 1000 * (os.cpu_count() or 1) / straight
    least = [min(pair) for pair in zip(*([run.fps for run in runs[way]] for way in WAYS[:2]), strict=True)]
    ratios: dict[str, Any] = {"cpu_bound_fps": round(bound, 1)}
    for way in WAYS[2:]:
        pairs = list(zip((run.fps for run in runs[way]), least, strict=True))
        ratios[f"{way}_ratio"] = _median(fps / limit for fps, limit in pairs)
        ratios[f"{way}_of_cpu_bound"] = _median(fps / min(limit, bound) for fps, limit in pairs)
        ratios[f"{way}_cpu_share"] = round(straight / sum(row[way]["cpu_ms"].values()), 3)
    return ratios


def _median(values: Iterator[float]) -> float:
    return round(statistics.median(values), 3)


def show(name: str, row: Mapping[str, Any]) -> None:
    """A case in a few lines."""
    bound = f"   at most {row['cpu_bound_fps']:.0f} frames/s by CPU" if "cpu_bound_fps" in row else ""
    print(f"{name} ({row['frames']} frames){bound}")
    for way in (way for way in (*WAYS, "straight") if way in row):
        parts = " ".join(f"{part} {ms:.2f}" for part, ms in row[way]["cpu_ms"].items())
        said = {"ratio": "ratio", "of_cpu_bound": "of what CPU allows", "cpu_share": "CPU share"}
        ratio = "   ".join(
            f"{words} {row[f'{way}_{key}']:.2f}" for key, words in said.items() if f"{way}_{key}" in row
        )
        print(f"  {way:9}{row[way]['fps']:8.1f} frames/s   CPU ms: {parts}   {ratio}", flush=True)


@contextlib.contextmanager
def standing(folder: Path) -> Iterator[Stand]:
    """A null Triton with YOLO11n and a gateway over it."""
    models = null_models.build(folder / "models", components.BRANCHES)
    videos = {"GATEWAY_VIDEOS_FOLDER": str(folder / "videos"), "GATEWAY_LEASES": str(LEASES)}
    with (
        services.triton(models, folder / "triton.log") as triton,
        services.gateway(triton.grpc_url, models, folder / "gateway.log", (), videos) as (port, served),
    ):
        ways = Stand(port, Clocks(served, triton.processes()), triton.grpc_url)
        try:
            yield ways
        finally:
            ways.rig.close()


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="a third of the seconds, one round")
    parser.add_argument("--cases", default="", help="only those whose names contain this")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    cases, rounds = [case for case in CASES if options.cases in case.name], options.rounds
    if options.short:
        cases = [
            replace(case, seconds=case.seconds * _SHORT_SHARE) for case in cases if case.name not in _LONG
        ]
        rounds = 1
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, standing(Path(name)) as ways:
        for case in cases:
            path = test_videos.make(
                Path(name) / f"{case.width}-{case.seconds}.mp4", case.width, case.height, case.seconds
            )
            rows[case.name] = measure(ways, case, path, rounds)
            show(case.name, rows[case.name])
            if options.json:
                document = {"rows": rows, "environment": environment(*ways.addresses, {})}
                options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
