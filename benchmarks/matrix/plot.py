"""A run as a picture: one panel per family, one group of bars per branch, one bar per target. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.common.environment import device_name
from benchmarks.matrix.plan import TARGETS

mpl.use("Agg")

from matplotlib import pyplot as plt  # after the choice of what draws

# Okabe and Ito's colours, which the colour-blind tell apart.
_COLOURS = dict(zip(TARGETS, ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"), strict=True))
_NAMES = {
    "gateway": "gateway (JPEG in, answer out)",
    "triton_grpc": "Triton, gRPC bytes",
    "triton_shm": "Triton, shared memory",
    "triton_json": "Triton, JSON over HTTP (the old client)",
    "embedded": "embedded engine",
}
_WIDTH = 0.8


def plot(document: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: p50 of one request after another (bars), p95 (whiskers), logarithmic; an error is a cross."""
    rows = [row for row in document["rows"] if row["policy"] == "seq" or row["policy"].startswith("prompts")]
    families = list(dict.fromkeys(row["family"] for row in rows if row["family"] != "*"))
    if not families:
        return
    columns = min(3, len(families))
    figure, axes = plt.subplots(
        -(-len(families) // columns), columns, squeeze=False, layout="constrained",
        figsize=(5.2 * columns, 1.2 + 3.3 * -(-len(families) // columns)),
    )  # fmt: skip
    for axis, family in zip(axes.flat, families, strict=False):
        _panel(axis, family, [row for row in rows if row["family"] == family])
    for axis in axes.flat[len(families) :]:
        axis.set_axis_off()
    targets = [target for target in TARGETS if any(row["target"] == target for row in rows)]
    handles = [plt.Rectangle((0, 0), 1, 1, color=_COLOURS[target]) for target in targets]
    figure.legend(handles, [_NAMES[target] for target in targets], loc="outside lower center", ncols=3)
    where = device_name(document["environment"])
    figure.suptitle(f"one request after another, p50 (bar) and p95 (whisker), ms; {where}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis: Any, family: str, rows: Sequence[Mapping[str, Any]]) -> None:
    groups = list(dict.fromkeys((row["branch"], row["policy"]) for row in rows))
    targets = [target for target in TARGETS if any(row["target"] == target for row in rows)]
    width = _WIDTH / len(targets)
    for row in rows:
        at = (
            groups.index((row["branch"], row["policy"]))
            - _WIDTH / 2
            + (targets.index(row["target"]) + 0.5) * width
        )
        if row["status"] == "ok":
            axis.bar(at, row["p50_ms"], width * 0.92, color=_COLOURS[row["target"]])
            axis.vlines(at, row["p50_ms"], row["p95_ms"], color="#333333", linewidth=1)
            axis.annotate(
                _short(row["p50_ms"]), (at, row["p95_ms"]), xytext=(0, 2), textcoords="offset points",
                ha="center", fontsize=6, rotation=90,
            )  # fmt: skip
        else:
            axis.plot(at, 0.03, "x", color=_COLOURS[row["target"]], transform=axis.get_xaxis_transform())
    axis.set_yscale("log")
    least = min((row["p50_ms"] for row in rows if row["status"] == "ok"), default=1)
    greatest = max((row["p95_ms"] for row in rows if row["status"] == "ok"), default=10)
    axis.set_ylim(
        10 ** math.floor(math.log10(least)), 2.5 * greatest
    )  # whole decades below, room for words above
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")
    axis.set_xticks(range(len(groups)), [_label(*group) for group in groups], fontsize=8)
    axis.set_title(family, fontsize=10)
    axis.set_ylabel("ms", fontsize=8)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)


def _short(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"


def _label(branch: str, policy: str) -> str:
    return branch if policy == "seq" else f"{branch}\n{policy}"
