"""Curves of `growth.json`, a PNG a section. Needs matplotlib.

python -m benchmarks.growth.plot docs/benchmarks/growth.json docs/benchmarks
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt  # after the choice of what draws

# Okabe and Ito's colours, which the colour-blind tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
Rows = Sequence[Mapping[str, Any]]


def plot(document: Mapping[str, Any], folder: Path) -> None:
    """Write `growth_<section>.png` of each section that there is."""
    for name, rows in document["rows"].items():
        panels = _PANELS[name](rows)
        figure, axes = plt.subplots(1, len(panels), layout="constrained", figsize=(4.6 * len(panels), 3.6))
        for axis, panel in zip(axes, panels, strict=True):
            _draw(axis, panel)
        where = document["environment"]
        figure.suptitle(f"{_TITLES[name]}; {where['cpu']}, {where['cpu_count']} cores", fontsize=9)
        figure.savefig(folder / f"growth_{name}.png", dpi=100)
        plt.close(figure)


Panel = tuple[str, str, Mapping[str, tuple[Sequence[float], Sequence[float]]], bool]


def _draw(axis: Any, panel: Panel) -> None:
    across, up, curves, logarithmic = panel
    for colour, (label, (xs, ys)) in zip(_COLOURS, curves.items(), strict=False):
        axis.plot(xs, ys, "o-", color=colour, label=label, markersize=4)
    points = sorted({x for xs, _ in curves.values() for x in xs})
    if logarithmic:
        axis.set_xscale("symlog", linthresh=1) if 0 in points else axis.set_xscale("log")
        axis.set_xticks(points, [f"{x:g}" for x in points], fontsize=7)
        axis.set_xticks([], minor=True)
    if up.endswith("(log)"):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
    else:
        axis.set_ylim(0, 1.1 * max(y for _, ys in curves.values() for y in ys))
    axis.set_xlabel(across, fontsize=8)
    axis.set_ylabel(up.removesuffix(" (log)"), fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)


def _curve(rows: Rows, across: str, up: str) -> tuple[list[float], list[float]]:
    return [row[across] for row in rows], [row[up] for row in rows]


def _cost(rows: Rows, key: str, label: str, *, logarithmic: bool = True) -> list[Panel]:
    def of(up: str) -> Any:
        return _curve(rows, key, up)

    return [
        (label, "ms", {"p50, one in flight": of("p50_ms"), "CPU of the service": of("cpu_ms")}, logarithmic),
        (label, "requests/s", {"four in flight": of("per_s")}, logarithmic),
        (label, "MB", {"resident memory": of("rss_mb")}, logarithmic),
    ]


def _in_flight(rows: Rows) -> list[Panel]:
    def of(up: str) -> Any:
        return _curve(rows, "in_flight", up)

    share = [row["refused"] / (row["refused"] + row["per_s"] * _SECONDS) for row in rows]
    return [
        ("callers", "ms (log)", {"p50": of("p50_ms"), "p95": of("p95_ms")}, True),
        ("callers", "requests/s", {"answered": of("per_s")}, True),
        ("callers", "share of requests", {"refused": (of("per_s")[0], share)}, True),
        ("callers", "MB", {"resident memory": of("rss_mb")}, True),
    ]


_SECONDS = 2.0


def _prompts(rows: Rows) -> list[Panel]:
    def of(up: str) -> Any:
        return _curve(rows, "prompts", up)

    times = {
        "cold: one by one / in one request": of("pipelined_times"),
        "in one request: cold / warm": of("cached_times"),
    }
    cost = {
        "cold, one by one": of("one_by_one_ms"),
        "cold, in one request": of("cold_ms"),
        "warm": of("warm_ms"),
    }
    return [
        ("prompts", "ms (log)", cost, True),
        ("prompts", "times (log)", times, True),
        ("prompts", "MB", {"resident memory": of("rss_mb")}, True),
    ]


def _workers(rows: Rows) -> list[Panel]:
    def of(up: str) -> Any:
        groups = dict.fromkeys((row["size"], row["workers"]) for row in rows)
        return {
            f"{size}, {count} worker{'s' * (count > 1)}": _curve(
                [row for row in rows if (row["size"], row["workers"]) == (size, count)], "in_flight", up
            )
            for size, count in groups
        }

    return [
        ("callers", "requests/s", of("per_s"), True),
        ("callers", "p50, ms (log)", of("p50_ms"), True),
        ("callers", "resident memory of all processes, MB", of("rss_mb"), True),
    ]


def _video(rows: Rows) -> list[Panel]:
    def of(up: str) -> Any:
        return _curve(rows, "seconds", up)

    memory = {
        "service, at most": of("peak_mb"),
        "decoder, at most": of("decoder_peak_mb"),
        "service, afterwards": of("rss_mb"),
    }
    return [
        ("length, s", "MB", memory, True),
        ("length, s", "frames decoded a second", {"every 5th looked at": of("decoded_per_s")}, True),
        ("length, s", "CPU ms a decoded frame", {"service and decoder": of("cpu_ms")}, True),
    ]


_PANELS: Mapping[str, Callable[[Rows], list[Panel]]] = {
    "size": lambda rows: _cost(rows, "megapixels", "megapixels (VGA, 720p, 1080p, 4K, 8K)"),
    "in_flight": _in_flight,
    "prompts": _prompts,
    "boxes": lambda rows: _cost(rows, "boxes", "boxes"),
    "workers": _workers,
    "video": _video,
}
_TITLES = {
    "size": "detect, by the picture's size",
    "in_flight": "detect 640x480, by callers at once",
    "prompts": "clip/text, by prompts",
    "boxes": "detect 640x480, by boxes found",
    "workers": "detect, by workers",
    "video": "detect in a video of 640x480, by its length",
}

if __name__ == "__main__":
    plot(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
