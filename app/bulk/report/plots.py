"""Plots as SVG that take the colour of the text around them. Needs matplotlib."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from app.bulk.report.data import Bin
from app.bulk.summary import Reason

_TEXT = "#010203"  # replaced by the colour of the page's text, which depends on the reader's scheme
_WORK, _FAULT, _GRID = "#4878b0", "#c0504d", "#808080"
_BINS = 40
_WIDE = 50.0  # times: where durations differ more, the axis is logarithmic
_MOST_REASONS = 12
_SIZE = (7.2, 2.8)  # inches
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _TEXT),
}
_IDS = re.compile(r'(\bid="|url\(#|href="#)')


def durations(seconds: Sequence[float]) -> str:
    """Return a histogram of the seconds per video."""
    values = np.asarray(seconds, np.float64)
    values = values[values > 0]

    def draw(axes: Any) -> None:
        low, high = float(values.min()), float(values.max())
        wide = high > _WIDE * low
        edges = (
            np.geomspace(low, high, _BINS + 1) if wide else np.linspace(low, max(high, low + 1e-3), _BINS + 1)
        )
        axes.hist(values, edges, color=_WORK)
        axes.set_xscale("log" if wide else "linear")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("seconds per video")
        axes.set_ylabel("videos")

    return _svg("durations", "Histogram of the seconds per video", draw) if len(values) else ""


def reasons(found: Sequence[Reason]) -> str:
    """Return bars with the number of videos by reason."""
    shown = list(reversed(found[:_MOST_REASONS]))

    def draw(axes: Any) -> None:
        bars = axes.barh([reason.code for reason in shown], [reason.count for reason in shown], color=_FAULT)
        axes.bar_label(bars, padding=3)
        axes.set_xlabel("videos")

    return _svg("reasons", "Videos by reason of failure", draw) if shown else ""


def pace(bins: Sequence[Bin]) -> str:
    """Return the frames per second over time."""

    def draw(axes: Any) -> None:
        starts = [one.start.replace(tzinfo=None) for one in bins]
        axes.step(starts, [one.frames_per_s for one in bins], where="post", color=_WORK)
        locator = AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("time (UTC)")
        axes.set_ylabel("frames per second")

    return _svg("pace", "Frames per second over time", draw) if len(bins) > 1 else ""


def _svg(name: str, label: str, draw: Callable[[Any], None]) -> str:
    """Return one `<svg>`; the ids in it begin with its name, so that several stand on one page."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=True, color=_GRID, alpha=0.3, linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = _IDS.sub(lambda found: f"{found[1]}{name}-", text[text.index("<svg") :]).replace(
        _TEXT, "currentColor"
    )
    head, body = text.split(">", 1)
    size = re.search(r'viewBox="[^"]*"', head)
    assert size is not None  # noqa: S101  # matplotlib writes one
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {size[0]} '
        f'role="img" aria-label="{html.escape(label)}">{body}'
    )
