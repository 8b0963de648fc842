"""Draws a Grafana dashboard from the answers of a real Prometheus: the same places, colours, units and limits.

No Grafana is needed, and nothing is made up: a panel without data says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from PIL import Image

Json = dict[str, Any]
PANEL, PAPER, INK, FAINT = "#181b1f", "#111217", "#d8d9da", "#3a3d44"
COLUMN_IN, ROW_IN, HEAD_IN, TITLE_IN, DPI = 0.6, 0.3, 0.4, 0.2, 96
LEGEND = 14  # most series that a legend names
_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


class Source(NamedTuple):
    """A source of answers to a panel's queries: over time, and for the last moment."""

    over_time: Callable[[str], list[Json]]
    now: Callable[[str], list[Json]]


def draw(board: Mapping[str, Any], source: Source, path: Path) -> list[str]:
    """Write a PNG; the titles of panels without data."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    plt.rcParams.update(
        {"font.size": 7, "text.color": INK, "axes.labelcolor": INK, "font.family": "DejaVu Sans"}
    )
    width, height = 24 * COLUMN_IN, rows * ROW_IN + HEAD_IN
    figure = plt.figure(figsize=(width, height), facecolor=PAPER)
    figure.text(0.01, 1 - 0.12 / height, board["title"], va="top", fontsize=12, fontweight="bold")
    empty = []
    for panel in board["panels"]:
        at = panel["gridPos"]
        top = height - HEAD_IN - at["y"] * ROW_IN
        heading = 0.0 if panel["type"] == "row" else TITLE_IN
        box = (at["x"] * COLUMN_IN + 0.08, top - at["h"] * ROW_IN + 0.06, at["w"] * COLUMN_IN - 0.16)
        inside = (
            box[0] / width,
            box[1] / height,
            box[2] / width,
            (at["h"] * ROW_IN - heading - 0.1) / height,
        )
        if not _draw_panel(figure.add_axes(inside), panel, source):
            empty.append(panel["title"])
    figure.savefig(path, dpi=DPI, facecolor=PAPER)
    plt.close(figure)
    Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(path, optimize=True)
    return empty


def _draw_panel(axes: Axes, panel: Json, source: Source) -> bool:
    axes.set_axis_off()
    if panel["type"] == "row":
        axes.text(0, 0.2, panel["title"], fontsize=9, fontweight="bold", transform=axes.transAxes)
        return True
    words = {"fontsize": 7.5, "transform": axes.transAxes, "va": "bottom"}
    axes.text(0, 1.01, panel["title"], fontweight="bold", **words)
    kinds = {"timeseries": _lines, "stat": _number, "bargauge": _bars, "table": _table}
    shown = kinds[panel["type"]](axes, panel, source)
    if not shown:
        axes.set_axis_off()
        axes.add_patch(plt.Rectangle((0, 0), 1, 1, transform=axes.transAxes, color=PANEL))
        axes.text(
            0.5, 0.5, "no data", ha="center", va="center", color=FAINT, fontsize=11, transform=axes.transAxes
        )
    return bool(shown)


def _lines(axes: Axes, panel: Json, source: Source) -> bool:
    defaults = panel["fieldConfig"]["defaults"]
    series = {
        _legend(target, one): [(at, float(value)) for at, value in one["values"]]
        for target in panel["targets"]
        for one in source.over_time(target["expr"])
    }
    series = {
        name: points for name, points in series.items() if any(not math.isnan(value) for _, value in points)
    }
    if not series:
        return False
    axes.set_axis_on()
    axes.set_facecolor(PANEL)
    start = min(points[0][0] for points in series.values())
    stacked: dict[float, float] = {}
    for place, (name, points) in enumerate(sorted(series.items())):
        minutes, values = [(at - start) / 60 for at, _ in points], [value for _, value in points]
        style: Json = {"color": _colour(panel, name, place), "linewidth": 1}
        if _dashed(panel, name):
            style |= {"linestyle": "--", "color": FAINT}
        if defaults["custom"]["stacking"]["mode"] == "normal":
            below = [stacked.get(at, 0.0) for at, _ in points]
            values = [low + value for low, value in zip(below, values, strict=True)]
            stacked |= {at: value for (at, _), value in zip(points, values, strict=True)}
            axes.fill_between(minutes, below, values, color=style["color"], alpha=0.3, linewidth=0)
        axes.plot(minutes, values, label=f"{name}  {_written(points[-1][1], defaults['unit'])}", **style)
    _dress(axes, defaults, len(series))
    return True


def _dress(axes: Axes, defaults: Json, count: int) -> None:
    """Room for the scale at the left and for the legend at the right; dotted lines where the limits are."""
    box = axes.get_position()
    width = axes.figure.get_figwidth()
    left, bottom = 0.42 / width, 0.17 / axes.figure.get_figheight()
    axes.set_position((box.x0 + left, box.y0 + bottom, box.width * 0.64 - left, box.height - bottom))
    axes.tick_params(colors=INK, labelsize=6, length=2)
    axes.yaxis.set_major_formatter(lambda value, _: _written(value, defaults["unit"]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} min")
    axes.locator_params(nbins=5)
    axes.grid(color=FAINT, linewidth=0.4)
    axes.set_ylim(bottom=0)
    for edge in axes.spines.values():
        edge.set_visible(False)
    highest = axes.get_ylim()[1]
    if defaults["custom"]["thresholdsStyle"]["mode"] != "off":
        for step in defaults["thresholds"]["steps"][1:]:
            if step["value"] < 2 * highest:
                axes.axhline(step["value"], color=step["color"], linestyle=":", linewidth=0.8)
    handles, labels = axes.get_legend_handles_labels()
    more = [*labels[:LEGEND], *([f"and {count - LEGEND} more"] if count > LEGEND else [])]
    axes.legend(
        handles[: len(more)], more, fontsize=5.5, frameon=False, labelcolor=INK, loc="upper left",
        bbox_to_anchor=(1.01, 1.02), borderaxespad=0, handlelength=1.2, labelspacing=0.35,
    )  # fmt: skip


def _number(axes: Axes, panel: Json, source: Source) -> bool:
    found = [float(one["value"][1]) for target in panel["targets"] for one in source.now(target["expr"])]
    if not found or math.isnan(found[0]):
        return False
    defaults = panel["fieldConfig"]["defaults"]
    colour = _limit(defaults["thresholds"], found[0])
    painted = panel["options"]["colorMode"] == "background"
    axes.add_patch(plt.Rectangle((0, 0), 1, 1, transform=axes.transAxes, color=colour if painted else PANEL))
    ink = PAPER if painted else colour
    words = {"ha": "center", "va": "center", "transform": axes.transAxes, "color": ink}
    axes.text(0.5, 0.5, _written(found[0], defaults["unit"]), fontsize=15, fontweight="bold", **words)
    return True


def _bars(axes: Axes, panel: Json, source: Source) -> bool:
    (target,) = panel["targets"]
    rows = [(_legend(target, one), float(one["value"][1])) for one in source.now(target["expr"])]
    rows = sorted((row for row in rows if not math.isnan(row[1])), key=lambda row: row[1])
    if not rows:
        return False
    unit = panel["fieldConfig"]["defaults"]["unit"]
    longest = max(panel["fieldConfig"]["defaults"].get("max", 0), *(value for _, value in rows)) or 1
    for place, (name, value) in enumerate(rows):
        axes.barh(place, longest, color=PANEL, height=0.8)
        axes.barh(place, value, color=_colour(panel, name, place), height=0.8, alpha=0.55)
        axes.text(0.01 * longest, place, name, va="center", fontsize=6)
        axes.text(0.99 * longest, place, _written(value, unit), va="center", ha="right", fontsize=6)
    axes.set_xlim(0, longest)
    axes.set_ylim(len(rows) - max(len(rows), 8) - 0.6, len(rows) - 0.4)
    return True


def _table(axes: Axes, panel: Json, source: Source) -> bool:
    merged: dict[tuple[tuple[str, str], ...], dict[str, str | float]] = {}
    for target in panel["targets"]:
        field = "Value" if len(panel["targets"]) == 1 else f"Value #{target['refId']}"
        for one in source.now(target["expr"]):
            labels = {name: value for name, value in one["metric"].items() if name != "__name__"}
            merged.setdefault(tuple(sorted(labels.items())), dict(labels))[field] = float(one["value"][1])
    steps = {step["id"]: step["options"] for step in panel["transformations"]}
    fields, titles = steps["filterFieldsByName"]["include"]["names"], steps["organize"]["renameByName"]
    rows = sorted(merged.values(), key=lambda row: [str(row.get(field, "")) for field in fields])
    if not rows:
        return False
    cells = [[_cell(panel, titles[field], row.get(field, "")) for field in fields] for row in rows]
    high = min(1.0, (len(rows) + 1) * 0.155 / (panel["gridPos"]["h"] * ROW_IN - TITLE_IN - 0.1))
    drawn = axes.table(
        [[text for text, _ in row] for row in cells], colLabels=[titles[field] for field in fields],
        cellColours=[[colour for _, colour in row] for row in cells], colColours=[FAINT] * len(fields),
        cellLoc="left", colLoc="left", edges="closed", bbox=(0, 1 - high, 1, high),
    )  # fmt: skip
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(6)
    drawn.auto_set_column_width(list(range(len(fields))))
    for (row, column), cell in drawn.get_celld().items():
        cell.set_edgecolor(FAINT)
        painted = row > 0 and cells[row - 1][column][1] != PANEL
        cell.get_text().set_color(PAPER if painted else INK)
    return True


def _cell(panel: Json, title: str, value: str | float) -> tuple[str, str]:
    """Return the text of a cell, and its background."""
    found = next((o for o in panel["fieldConfig"]["overrides"] if o["matcher"]["options"] == title), None)
    properties = {part["id"]: part["value"] for part in found["properties"]} if found else {}
    if isinstance(value, str):
        words = properties.get("mappings", [{"options": {}}])[0]["options"]
        return (f"{value[:22]}…" if len(value) > 40 else value), words.get(value, {}).get("color", PANEL)
    painted = "thresholds" in properties and not math.isnan(value)
    return _written(value, properties.get("unit", "short")), _limit(
        properties["thresholds"], value
    ) if painted else PANEL


def _legend(target: Json, series: Json) -> str:
    labels = series["metric"]
    if target["legendFormat"] == "__auto":
        return ", ".join(value for name, value in labels.items() if name != "__name__")
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), target["legendFormat"]) or "(none)"


def _colour(panel: Json, name: str, place: int) -> str:
    for override in panel["fieldConfig"]["overrides"]:
        for part in override["properties"]:
            if part["id"] == "color" and re.search(override["matcher"]["options"].strip("/"), name):
                return str(part["value"]["fixedColor"])
    return str(mpl.colors.to_hex(mpl.colormaps["tab20"](place % 20)))


def _dashed(panel: Json, name: str) -> bool:
    return any(
        part["id"] == "custom.lineStyle" and re.search(override["matcher"]["options"].strip("/"), name)
        for override in panel["fieldConfig"]["overrides"]
        for part in override["properties"]
    )


def _limit(thresholds: Json, value: float) -> str:
    colour = thresholds["steps"][0]["color"]
    for step in thresholds["steps"][1:]:
        if value >= step["value"]:
            colour = step["color"]
    return str(colour)


def _written(value: float, unit: str) -> str:
    """A value with its unit, three digits of it."""
    if math.isnan(value):
        return "NaN"
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        small, name = next(
            ((s, n) for s, n in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")) if abs(value) >= s), (1, "s")
        )
        return f"{value / small:.3g} {name}"
    large, prefix = next(((s, n) for s, n in _SCALES if abs(value) >= s), (1, ""))
    names = {"bytes": "B", "Bps": "B/s", "reqps": "/s", "ops": "/s", "watt": "W", "short": ""}
    return f"{value / large:.3g} {prefix}{names[unit]}".strip()
