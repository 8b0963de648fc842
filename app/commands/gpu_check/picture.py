"""The results of `gateway gpu-check` as one picture: latency, memory beside the estimate, and the branches together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt  # after the choice of what draws

# Okabe and Ito's colours, which the colour-blind tell apart.
_HERE, _THERE, _ESTIMATE, _BAD = "#0072B2", "#999999", "#E69F00", "#D55E00"
_GIBIBYTE = 1 << 30
_BAR = 0.4


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Write a PNG of a document of `report.document`."""
    rows = max(len(document["alone"]), len(document["together"]["runs"]), 4)
    figure, axes = plt.subplots(1, 3, figsize=(16, 1.8 + 0.3 * rows), layout="constrained")
    _latency(axes[0], document)
    _memory(axes[1], document)
    _together(axes[2], document)
    where = ", ".join(gpu["name"] for gpu in document["gpus"]) or "no GPU: the processor"
    figure.suptitle(f"gateway gpu-check: {where}")
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)


def _names(axis: Any, names: list[str]) -> None:
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(visible=True, axis="x", linewidth=0.4)
    axis.set_axisbelow(True)


def _latency(axis: Any, document: Mapping[str, Any]) -> None:
    rows, reference = document["alone"], document["reference"]["p50_ms"]
    for place, row in enumerate(rows):
        before = reference.get(row["name"])
        if row["status"] == "ok":
            axis.barh(place - _BAR / 2, row["p50_ms"], _BAR, color=_HERE, label="here, p50")
        else:
            axis.text(0.02, place - _BAR / 2, row["status"], transform=axis.get_yaxis_transform(), fontsize=7,
                      color=_BAD, va="center")  # fmt: skip
        if before is not None:
            axis.barh(place + _BAR / 2, before, _BAR, color=_THERE, label="RTX 2060, JSON client")
    axis.set_xscale("log")
    axis.set_title("one inference, ms (alone)")
    _names(axis, [row["name"] for row in rows])
    _legend(axis)


def _memory(axis: Any, document: Mapping[str, Any]) -> None:
    rows = document["alone"]
    for place, row in enumerate(rows):
        for key, shift, colour, label in (
            ("taken_bytes", -1, _HERE, "taken"),
            ("estimate_bytes", 1, _ESTIMATE, "estimate"),
        ):
            if row[key] is not None:
                axis.barh(place + shift * _BAR / 2, row[key] / _GIBIBYTE, _BAR, color=colour, label=label)
    axis.set_title("memory, GiB (alone)")
    _names(axis, [row["name"] for row in rows])
    _legend(axis)


def _together(axis: Any, document: Mapping[str, Any]) -> None:
    before, runs = document["together"]["before_bytes"], document["together"]["runs"]
    for place, run in enumerate(runs):
        good = run["status"] == "ok"
        if run["memory"] is not None and before is not None:
            taken = (run["memory"] - before) / _GIBIBYTE
            axis.barh(place, taken, 2 * _BAR, color=_HERE if good else _BAD, label="ok" if good else "failed")
        if not good:
            axis.text(
                0.02, place, run["status"], transform=axis.get_yaxis_transform(), fontsize=7, va="center"
            )
    axis.axvline(
        document["memory_bytes"] / _GIBIBYTE, color=_BAD, linestyle="--", linewidth=1, label="memory"
    )
    axis.set_title("memory, GiB (one after another, all kept)")
    _names(axis, [run["name"] for run in runs])
    _legend(axis)


def _legend(axis: Any) -> None:
    """A row per label, however many bars have it."""
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        axis.legend(unique.values(), unique.keys(), fontsize=7, loc="lower right")
