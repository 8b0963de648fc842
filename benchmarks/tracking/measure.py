"""The part of the MOT17 benchmark that runs in its own environment.

A package that answers smoothed boxes and the rows that they come from is judged twice, with its own boxes and with the
detections of those rows, because trackers of the same ids differ by that alone. Time is that of the update call, its
arguments prepared before: by the clock and, because a busy machine lends the processor to others, this thread's on the
processor. In a round every tracker takes every sequence, in turn; the first round is not counted, and a figure is the
median over the others of all frames' time by the number of frames.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import io
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import trackeval

from benchmarks.tracking.trackers import PEERS, Array, Peer, Shown

Answers = dict[tuple[str, str], list[Shown]]  # (tracker, sequence) -> what it showed in each frame
Seconds = dict[str, list[float]]  # tracker -> of all its updates, in each counted round


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description="Called by benchmarks.tracking.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sequences = [Sequence.read(path.parent.parent) for path in sorted(options.data.glob("*/det/det.txt"))]
    if not sequences:
        raise SystemExit(f"no MOT17 sequences in {options.data}")
    answers, times = run_rounds(sequences, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        names = write_tracks(Path(folder), answers, sequences)
        quality = judge(options.data, Path(folder), names, sequences)
    figures = summary(sequences, times, quality, answers)
    report(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


@dataclass(frozen=True)
class Sequence:
    """One video's detections by frame, and its rate."""

    name: str
    fps: float
    frames: list[tuple[Array, Array]]  # boxes (n, 4) float32 xyxy, scores (n,) float32

    @classmethod
    def read(cls, folder: Path) -> Sequence:
        info = configparser.ConfigParser()
        info.read(folder / "seqinfo.ini")
        table = np.loadtxt(folder / "det" / "det.txt", delimiter=",", ndmin=2)
        table[:, 4:6] += table[:, 2:4]
        frames = []
        for number in range(1, info.getint("Sequence", "seqLength") + 1):
            rows = table[table[:, 0] == number].astype(np.float32)
            frames.append((rows[:, 2:6].copy(), rows[:, 6].copy()))
        return cls(folder.name, info.getfloat("Sequence", "frameRate"), frames)


def summary(
    sequences: list[Sequence], times: tuple[Seconds, Seconds], quality: dict[str, Any], answers: Answers
) -> dict[str, Any]:
    frames = sum(len(sequence.frames) for sequence in sequences)
    seconds, cpu = times
    return {
        "command": "python -m benchmarks.tracking",
        "sequences": {sequence.name: len(sequence.frames) for sequence in sequences},
        "trackers": {
            name: {
                "package": f"{peer.package} {version(peer.package)}" if peer.package else "this repository",
                "how": peer.how,
                "us_per_frame": microseconds(seconds[name], frames),
                "us_per_frame_of_processor": microseconds(cpu[name], frames),
                "us_per_frame_rounds": [round(1e6 * spent / frames, 1) for spent in seconds[name]],
                "time_by_ours": round(
                    statistics.median(a / b for a, b in zip(cpu[name], cpu["ours"], strict=True)), 2
                ),
                "quality": quality[name],
                **with_rows(name, quality, answers),
            }
            for name, peer in PEERS.items()
        },
        "environment": {
            "cpu_count": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scipy", "trackeval")},
        },
    }


def microseconds(seconds: list[float], frames: int) -> float:
    return round(1e6 * statistics.median(seconds) / frames, 1)


def run_rounds(sequences: list[Sequence], rounds: int) -> tuple[Answers, tuple[Seconds, Seconds]]:
    """Return each tracker's output, and its seconds in each counted round, by the clock and on the processor."""
    answers: Answers = {}
    names = list(PEERS)
    times: tuple[Seconds, Seconds] = ({name: [] for name in names}, {name: [] for name in names})
    for number in range(rounds + 1):
        spent = {name: np.zeros(2) for name in names}
        for sequence in sequences:
            for name in names[number % len(names) :] + names[: number % len(names)]:
                shown, used = track(PEERS[name], sequence)
                spent[name] += used
                first = answers.setdefault((name, sequence.name), shown)
                assert ids_of(shown) == ids_of(first), f"{name} answers another round otherwise"
        for name in names if number else []:
            for kind, seconds in zip(times, spent[name].tolist(), strict=True):
                kind[name].append(seconds)
    return answers, times


def ids_of(frames: list[Shown]) -> list[list[tuple[int, int]]]:
    return [[(i, row) for i, _, row in frame] for frame in frames]


def track(peer: Peer, sequence: Sequence) -> tuple[list[Shown], tuple[float, float]]:
    """Return a new tracker's output per frame, and the seconds of its updates by the clock and on the processor."""
    tracker, frames, clock, cpu = peer.new(sequence.fps), [], 0.0, 0.0
    numbers: dict[int, int] = {}  # ids in the order of their appearance: some packages go on counting
    for number, (boxes, scores) in enumerate(sequence.frames):
        arguments = peer.prepare(boxes, scores, number / sequence.fps)
        started, started_cpu = time.perf_counter(), time.thread_time()
        answer = peer.update(tracker, *arguments)
        cpu += time.thread_time() - started_cpu
        clock += time.perf_counter() - started
        shown = peer.shown(answer, boxes)
        frames.append([(numbers.setdefault(i, len(numbers) + 1), box, row) for i, box, row in shown])
    return frames, (clock, cpu)


def write_tracks(folder: Path, answers: Answers, sequences: list[Sequence]) -> list[str]:
    """MOT17's result files; of what tells its rows, also with the detections' boxes. The names to judge."""
    names = []
    for (name, sequence_name), frames in answers.items():
        detections = next(sequence.frames for sequence in sequences if sequence.name == sequence_name)
        kinds = {name: False}
        if name != "ours" and any(row >= 0 for frame in frames for _, _, row in frame):
            kinds[f"{name} rows"] = True
        for kind, by_row in kinds.items():
            lines = [
                f"{number},{i},{x1:.3f},{y1:.3f},{x2 - x1:.3f},{y2 - y1:.3f},1,-1,-1,-1"
                for number, (frame, (boxes, _)) in enumerate(zip(frames, detections, strict=True), 1)
                for i, box, row in frame
                for x1, y1, x2, y2 in [boxes[row] if by_row else box]
            ]
            path = folder / kind / "data" / f"{sequence_name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
            names += [kind] if kind not in names else []
    return names


def judge(data: Path, folder: Path, names: list[str], sequences: list[Sequence]) -> dict[str, Any]:
    """HOTA, MOTA and IDF1 in % and id switches by trackeval, of each sequence and of all together."""
    quiet = {"PRINT_CONFIG": False}
    dataset = trackeval.datasets.MotChallenge2DBox(
        {
            **quiet,
            "GT_FOLDER": str(data),
            "TRACKERS_FOLDER": str(folder),
            "TRACKERS_TO_EVAL": names,
            "SKIP_SPLIT_FOL": True,
            "SEQ_INFO": {sequence.name: len(sequence.frames) for sequence in sequences},
        }
    )
    outputs = ("PRINT_RESULTS", "TIME_PROGRESS", "OUTPUT_SUMMARY", "OUTPUT_DETAILED", "PLOT_CURVES")
    evaluator = trackeval.Evaluator({**quiet, **dict.fromkeys(outputs, False), "LOG_ON_ERROR": None})
    metrics = [
        trackeval.metrics.HOTA(quiet),
        trackeval.metrics.CLEAR(quiet),
        trackeval.metrics.Identity(quiet),
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        results, _ = evaluator.evaluate([dataset], metrics)
    wanted = {**{sequence.name: sequence.name for sequence in sequences}, "all": "COMBINED_SEQ"}
    return {
        name: {
            label: {
                "HOTA": round(100 * float(found["HOTA"]["HOTA"].mean()), 3),
                "MOTA": round(100 * float(found["CLEAR"]["MOTA"]), 3),
                "IDF1": round(100 * float(found["Identity"]["IDF1"]), 3),
                "IDSW": int(found["CLEAR"]["IDSW"]),
            }
            for label, key in wanted.items()
            for found in [results["MotChallenge2DBox"][name][key]["pedestrian"]]
        }
        for name in names
    }


def with_rows(name: str, quality: dict[str, Any], answers: Answers) -> dict[str, Any]:
    """Return, for a tracker that reports rows: quality with their boxes, and how many rows differ from ours."""
    if f"{name} rows" not in quality:
        return {}
    total = unlike = 0
    for (other, sequence), frames in answers.items():
        if other == name:
            same: dict[int, int] = {}
            for theirs, ours in zip(frames, answers["ours", sequence], strict=True):
                a, b = ({row: i for i, _, row in frame} for frame in (theirs, ours))
                total += len(a.keys() | b.keys())
                unlike += len(a.keys() ^ b.keys())
                unlike += sum(same.setdefault(b[row], a[row]) != a[row] for row in a.keys() & b.keys())
    return {
        "quality_with_detections_boxes": quality[f"{name} rows"],
        "rows": {"shown": total, "unlike_ours": unlike},
    }


def report(figures: dict[str, Any]) -> None:
    print(f"{'':34}{'HOTA':>8}{'MOTA':>8}{'IDF1':>8}{'IDSW':>6}{'us/frame':>10}{'of CPU':>8}{'/ ours':>8}")
    for name, found in figures["trackers"].items():
        for kind, timed in (("quality", True), ("quality_with_detections_boxes", False)):
            if kind in found:
                row = found[kind]["all"]
                label = found["package"] if name != "ours" else "ours"
                label += "" if timed else ", rows' boxes"
                clock, cpu = found["us_per_frame"], found["us_per_frame_of_processor"]
                timing = f"{clock:10.0f}{cpu:8.0f}{found['time_by_ours']:8.2f}" if timed else ""
                print(
                    f"{label:34}{row['HOTA']:8.2f}{row['MOTA']:8.2f}{row['IDF1']:8.2f}{row['IDSW']:6}{timing}"
                )


if __name__ == "__main__":
    main()
