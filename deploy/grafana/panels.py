"""The parts of a dashboard in Grafana's classic JSON model, as plain dictionaries: panels, variables, layout.

One place for what must look the same everywhere: colours by what a series means, legends, tooltips, units.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

SCHEMA_VERSION = 41  # Grafana 12; newer ones migrate it by themselves
TAG = "triton-vision-gateway"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GPU_ONLY = " (GPU hosts)"  # ends the title of a panel whose series exist on GPU hosts alone
GREEN, BLUE, ORANGE, RED, PURPLE, YELLOW, GREY, TEAL = (
    "#73BF69", "#5794F2", "#FF9830", "#F2495C", "#B877D9", "#FADE2A", "#8E8E8E", "#5AC8C8",
)  # fmt: skip
# A series that means the same has the same colour on every dashboard: by the label that its legend shows ...
COLOURS: dict[str, dict[str, str]] = {
    "stage": {
        "decode": TEAL, "queue": YELLOW, "prepare": BLUE, "infer": GREEN, "finish": PURPLE, "encode": ORANGE,
    },
    "result": {"ok": GREEN, "error": RED},
    "class": {"2xx": GREEN, "3xx": GREY, "4xx": ORANGE, "5xx": RED, "aborted": GREY},
    "weights": {"random": RED, "pretrained": GREEN, "checkpoint": BLUE, "none": GREY, "unknown": ORANGE},
    "kind": {"rule": GREEN, "override": BLUE, "fallback": ORANGE},
    "transport": {"shared_memory": GREEN, "bytes": ORANGE, "inprocess": BLUE},
    "state": {
        "done": GREEN, "running": BLUE, "queued": YELLOW, "failed": RED, "partial": ORANGE, "skipped": GREY,
        "poison": PURPLE,
    },
    "outcome": {"delivered": GREEN, "retried": ORANGE, "given_up": RED, "refused": PURPLE},
}  # fmt: skip
# Of families, in the catalogue's order; more of them than colours begin again.
_FAMILY_COLOURS = (BLUE, PURPLE, ORANGE, GREEN, TEAL, YELLOW, RED, GREY)
_PER_FAMILY: Json = {"one of each family": True}  # see `with_families`
# ... or by its name, where the legend is a plain word.
NAMES = {"gateway": BLUE, "Triton": GREEN, "p50": GREEN, "p95": ORANGE, "p99": RED, "hit": GREEN}


@dataclass(frozen=True)
class Query:
    """A PromQL expression and the name that its series get."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Limits:
    """Thresholds where a value turns from green to orange to red; with `falling`, low values are the bad ones."""

    orange: float
    red: float
    falling: bool = False

    def steps(self) -> list[Json]:
        """Return Grafana's threshold steps: a base colour, then each value from which another one holds."""
        if self.falling:
            steps = [_step(RED, None), _step(ORANGE, self.red), _step(GREEN, self.orange)]
        else:
            steps = [_step(GREEN, None), _step(ORANGE, self.orange), _step(RED, self.red)]
        return steps if self.orange != self.red else [steps[0], steps[2]]


def _step(colour: str, value: float | None) -> Json:
    return {"color": colour, "value": value}


@dataclass(frozen=True)
class Panel:
    """A panel without its place: the layout gives it `id` and `gridPos`."""

    json: Json
    width: int
    height: int


def row(title: str) -> Panel:
    """A heading over the panels that follow."""
    return Panel({"type": "row", "title": title, "collapsed": False, "panels": []}, 24, 1)


def lines(
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    *,
    stack: bool = False,
    width: int = 12,
    height: int = 8,
    limits: Limits | None = None,
    dashed: str | None = None,
    maximum: float | None = None,
) -> Panel:
    """Values over time; `dashed` names a series that is a line to compare with, not a measurement."""
    custom = {
        "drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if stack else 0, "showPoints": "never",
        "spanNulls": False, "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if limits else "off"},
    }  # fmt: skip
    overrides = _colours(queries)
    if dashed:
        style = {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}}
        overrides.append({"matcher": {"id": "byRegexp", "options": f"/{dashed}/"}, "properties": [style]})
    defaults = {"unit": unit, "min": 0, "custom": custom, "color": {"mode": "palette-classic-by-name"}}
    if maximum is not None:
        defaults["max"] = maximum
    options = {
        "legend": {
            "displayMode": "table",
            "placement": "bottom",
            "calcs": ["lastNotNull", "max"],
            "showLegend": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    field = {"defaults": {**defaults, **_thresholds(limits)}, "overrides": overrides}
    return _panel("timeseries", title, description, queries, options, field, (width, height))


def number(
    title: str, description: str, query: str, unit: str, *, limits: Limits | None = None, width: int = 4
) -> Panel:
    """One number now, with its course behind it."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "graphMode": "area",
        "colorMode": "background" if limits else "value", "textMode": "auto", "justifyMode": "auto",
        "orientation": "auto",
    }  # fmt: skip
    defaults = {"unit": unit, "color": {"mode": "thresholds"}, "noValue": "none", **_thresholds(limits)}
    field = {"defaults": defaults, "overrides": []}
    return _panel("stat", title, description, [Query(query)], options, field, (width, 4))


def bars(
    title: str, description: str, query: Query, unit: str, *, width: int = 12, height: int = 8,
    limits: Limits | None = None, maximum: float | None = None,
) -> Panel:  # fmt: skip
    """One bar a series, as of now."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "displayMode": "basic",
        "orientation": "horizontal", "showUnfilled": True, "valueMode": "color", "minVizHeight": 16,
        "maxVizHeight": 24, "minVizWidth": 8, "namePlacement": "auto", "sizing": "auto",
    }  # fmt: skip
    mode = "thresholds" if limits else "palette-classic-by-name"
    defaults: Json = {"unit": unit, "min": 0, "color": {"mode": mode}, **_thresholds(limits)}
    if maximum is not None:
        defaults["max"] = maximum
    field = {"defaults": defaults, "overrides": [] if limits else _colours([query])}
    return _panel("bargauge", title, description, [query], options, field, (width, height), instant=True)


@dataclass(frozen=True)
class Column:
    """A column of a table: a label of the series, or the value of query number `query`."""

    title: str
    label: str = ""
    query: int = 0
    unit: str = "short"
    limits: Limits | None = None
    words: Mapping[str, str] | None = None  # word of the label -> colour

    def field(self, queries: int) -> str:
        """Return the name that Grafana gives the field once the queries' tables are merged."""
        if self.label:
            return self.label
        return "Value" if queries == 1 else f"Value #{_letter(self.query)}"


def table(
    title: str, description: str, queries: Sequence[Query], columns: Sequence[Column], *, width: int = 24,
    height: int = 8,
) -> Panel:  # fmt: skip
    """Instant values: queries with the same labels are merged into one row a series; other fields are hidden."""
    fields = {column.field(len(queries)): column.title for column in columns}
    places = {field: place for place, field in enumerate(fields)}
    transformations = [
        {"id": "merge", "options": {}},
        {"id": "filterFieldsByName", "options": {"include": {"names": list(fields)}}},
        {"id": "organize", "options": {"indexByName": places, "renameByName": fields, "excludeByName": {}}},
    ]
    overrides = [_column(column) for column in columns if not column.label or column.words]
    options = {
        "showHeader": True,
        "cellHeight": "sm",
        "footer": {"show": False, "reducer": ["sum"], "fields": ""},
    }
    defaults = {
        "custom": {"align": "auto", "filterable": True},
        "color": {"mode": "thresholds"},
        **_thresholds(None),
    }
    field = {"defaults": defaults, "overrides": overrides}
    panel = _panel("table", title, description, queries, options, field, (width, height), instant=True)
    panel.json["transformations"] = transformations
    return panel


def _column(column: Column) -> Json:
    properties: list[Json] = []
    if not column.label:
        properties.append({"id": "unit", "value": column.unit})
    if column.limits:
        properties.append({"id": "thresholds", "value": {"mode": "absolute", "steps": column.limits.steps()}})
    if column.words:
        words = {
            word: {"color": colour, "index": place}
            for place, (word, colour) in enumerate(column.words.items())
        }
        properties.append({"id": "mappings", "value": [{"type": "value", "options": words}]})
    if column.limits or column.words:
        properties.append(
            {"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}}
        )
    return {"matcher": {"id": "byName", "options": column.title}, "properties": properties}


def _letter(place: int) -> str:
    return chr(ord("A") + place)


def _thresholds(limits: Limits | None) -> Json:
    return {"thresholds": {"mode": "absolute", "steps": limits.steps() if limits else [_step(GREEN, None)]}}


def _colours(queries: Sequence[Query]) -> list[Json]:
    """Overrides for the series that these queries can make; all others take Grafana's colour for their name."""
    known: dict[str, str] = {}
    per_family = False
    for query in queries:
        for label in re.findall(r"{{(\w+)}}", query.legend):
            known |= COLOURS.get(label, {})
            per_family = per_family or label == "family"
        if query.legend in NAMES:
            known[query.legend] = NAMES[query.legend]
    made = [_override(name, colour) for name, colour in known.items()]
    return [*made, _PER_FAMILY] if per_family else made


def _override(name: str, colour: str) -> Json:
    return {
        "matcher": {"id": "byRegexp", "options": f"/(^|· ){name}$/"},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
    }


def with_families(board: Json, families: Iterable[str]) -> Json:
    """Give each family its colour in the panels of a board whose legends name families."""
    colours = dict(zip(families, itertools.cycle(_FAMILY_COLOURS), strict=False))
    rows = [_override(name, colour) for name, colour in colours.items()]
    for panel in board["panels"]:
        field = panel.get("fieldConfig", {})
        if "overrides" in field:
            parts = (rows if override is _PER_FAMILY else [override] for override in field["overrides"])
            field["overrides"] = list(itertools.chain.from_iterable(parts))
    return board


def _panel(
    kind: str, title: str, description: str, queries: Sequence[Query], options: Json, field: Json,
    size: tuple[int, int], *, instant: bool = False,
) -> Panel:  # fmt: skip
    targets = [
        {
            "refId": _letter(place), "datasource": DATASOURCE, "editorMode": "code", "expr": query.expr,
            "legendFormat": query.legend or "__auto", "range": not instant, "instant": instant,
            "format": "table" if kind == "table" else "time_series",
        }
        for place, query in enumerate(queries)
    ]  # fmt: skip
    json = {
        "type": kind, "title": title, "description": description, "datasource": DATASOURCE, "targets": targets,
        "options": options, "fieldConfig": field, "transformations": [],
    }  # fmt: skip
    return Panel(json, *size)


def variable(name: str, label: str, query: str) -> Json:
    """Values of a label, any number of them, all at first."""
    return {
        "type": "query", "name": name, "label": label, "datasource": DATASOURCE, "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2, "regex": "", "sort": 1, "multi": True, "includeAll": True, "allValue": ".*", "hide": 0,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "options": [], "skipUrlSync": False,
    }  # fmt: skip


def dashboard(
    uid: str, title: str, description: str, variables: Iterable[Json], panels: Iterable[Panel]
) -> Json:
    """The whole document: panels flow from left to right, links lead to the others and keep time and variables."""
    source = {
        "type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "regex": "",
        "refresh": 1, "multi": False, "includeAll": False, "hide": 0, "current": {}, "options": [],
        "skipUrlSync": False,
    }  # fmt: skip
    link = {
        "type": "dashboards", "title": "Gateway", "tags": [TAG], "asDropdown": False, "includeVars": True,
        "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "", "url": "",
    }  # fmt: skip
    return {
        "uid": uid, "title": title, "description": description, "tags": [TAG], "schemaVersion": SCHEMA_VERSION,
        "version": 1, "editable": True, "graphTooltip": 1, "fiscalYearStartMonth": 0, "timezone": "browser",
        "refresh": "10s", "time": {"from": "now-30m", "to": "now"}, "timepicker": {}, "links": [link],
        "templating": {"list": [source, *variables]}, "annotations": {"list": [_firing()]}, "preload": False,
        "panels": _placed(panels),
    }  # fmt: skip


def _firing() -> Json:
    """Marks on every graph where one of our alerts fires."""
    return {
        "name": "Alerts", "enable": True, "hide": False, "iconColor": RED, "datasource": DATASOURCE,
        "expr": 'ALERTS{alertstate="firing", alertname=~"Gateway.*|Triton.*"}', "step": "30s",
        "titleFormat": "{{alertname}}", "textFormat": "{{branch}}{{route}}{{model}}", "tagKeys": "severity",
    }  # fmt: skip


def _placed(panels: Iterable[Panel]) -> list[Json]:
    placed = []
    x = y = tallest = 0
    for number_, panel in enumerate(panels, 1):
        if x + panel.width > 24:
            x, y, tallest = 0, y + tallest, 0
        place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
        placed.append({"id": number_, **panel.json, "gridPos": place})
        x, tallest = x + panel.width, max(tallest, panel.height)
    return placed
