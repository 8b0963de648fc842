"""The dashboards: their JSON is what the code makes and what Grafana takes, and every query has something to show."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from support.paths import ROOT
from support.servers.observed import Observed
from support.servers.prometheus_server import CONFIG
from support.waiting import eventually

from deploy.grafana.queries import (
    FOLDER,
    GPU_ONLY,
    PanelQuery,
    boards,
    panels,
    queries,
    substituted,
    variables,
)

BOARDS = boards()
KINDS = {"timeseries", "stat", "bargauge", "table"}
UNITS = {"short", "s", "bytes", "Bps", "reqps", "ops", "percentunit", "watt"}
# Of the Prometheus plugin, which Grafana's schema leaves open.
PLUGINS_OWN = {
    ".templating.list[].definition",
    *(f".annotations.list[].{key}" for key in ("step", "titleFormat", "textFormat", "tagKeys")),
}


def _label(query: PanelQuery) -> str:
    return f"{query.board}-{query.panel}-{query.letter}"


def _all() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, board in BOARDS.items():
        for panel in panels(board):
            yield name, panel


def test_the_json_is_what_the_code_makes() -> None:
    """A change of the code without its JSON, or of the JSON by hand, is noticed."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.grafana.build", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_subject_has_its_dashboard() -> None:
    """Overview, branches and stages, Triton, videos, bulk runs, provenance; each under its own uid and title."""
    assert set(BOARDS) == {"overview", "branches", "triton", "videos", "bulk", "provenance"}
    for key in ("uid", "title"):
        assert len({board[key] for board in BOARDS.values()}) == len(BOARDS)


@pytest.mark.parametrize("name", BOARDS)
def test_the_document_is_complete(name: str) -> None:
    """Current schema, description, a variable for the data source, links to the other dashboards that keep the time."""
    board = BOARDS[name]
    assert board["schemaVersion"] == 41
    assert board["description"].endswith(".")
    assert {"type": "datasource", "query": "prometheus"}.items() <= board["templating"]["list"][0].items()
    (link,) = board["links"]
    assert (link["type"], link["keepTime"], link["includeVars"]) == ("dashboards", True, True)
    assert all(set(link["tags"]) <= set(other["tags"]) for other in BOARDS.values())


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_places_of_their_own(name: str) -> None:
    """Ids are unique, no panel lies over another one or outside the 24 columns."""
    placed = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in placed}) == len(placed)
    assert len({panel["title"] for panel in placed}) == len(placed)
    taken: set[tuple[int, int]] = set()
    for panel in placed:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize(
    ("name", "panel"), list(_all()), ids=lambda part: part if isinstance(part, str) else part["title"]
)
def test_a_panel_can_be_read(name: str, panel: dict[str, Any]) -> None:
    """A known kind and unit, words on what to make of it, queries of the chosen data source with ids of their own."""
    assert panel["type"] in KINDS
    assert panel["description"].endswith(".")
    assert len(panel["description"]) > 15
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for source in (panel, *panel["targets"]):
        assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    units = [panel["fieldConfig"]["defaults"].get("unit", "short")]
    for override in panel["fieldConfig"]["overrides"]:
        units += [part["value"] for part in override["properties"] if part["id"] == "unit"]
    assert set(units) <= UNITS


@pytest.mark.parametrize("name", BOARDS)
def test_variables_are_defined_and_used(name: str) -> None:
    """A query of an unknown variable shows nothing, and a variable that no query has chooses nothing."""
    declared = BOARDS[name]["templating"]["list"][1:]
    used = {"datasource", "__rate_interval"}
    for panel in panels(BOARDS[name]):
        used |= variables(" ".join(target["expr"] for target in panel["targets"]))
    for variable in declared:
        used |= variables(variable["definition"])
        assert variable["query"]["query"] == variable["definition"]
        assert (variable["includeAll"], variable["allValue"]) == (True, ".*")
    assert used == {"datasource", "__rate_interval", *(variable["name"] for variable in declared)}


def test_a_series_has_one_colour_everywhere() -> None:
    """Whatever dashboard shows it: what is red on one isn't green on the next."""
    colours: dict[str, set[str]] = {}
    for _, panel in _all():
        for override in panel["fieldConfig"]["overrides"]:
            for part in override["properties"]:
                if part["id"] == "color":
                    colours.setdefault(override["matcher"]["options"], set()).add(part["value"]["fixedColor"])
    assert len(colours) > 20
    assert {name: found for name, found in colours.items() if len(found) > 1} == {}


def test_runbooks_that_panels_name_exist() -> None:
    """`runbook of X` leads to an alert, and every alert's chapter is in docs/dashboards.md (see test_rules)."""
    rules = yaml.safe_load((CONFIG / "rules" / "alerts.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    named = {name for _, panel in _all() for name in re.findall(r"runbook of (\w+)", panel["description"])}
    assert len(named) > 5
    assert named <= alerts


def test_random_weights_are_red() -> None:
    """The table of what is served paints the word, and the number of such branches turns red at one."""
    served, count = (
        next(panel for panel in panels(BOARDS["provenance"]) if panel["title"] == title)
        for title in ("What is served", "Branches with random weights")
    )
    (weights,) = (o for o in served["fieldConfig"]["overrides"] if o["matcher"]["options"] == "Weights")
    values = {part["id"]: part["value"] for part in weights["properties"]}
    red = values["mappings"][0]["options"]["random"]["color"]
    assert red != values["mappings"][0]["options"]["pretrained"]["color"]
    assert count["fieldConfig"]["defaults"]["thresholds"]["steps"][1] == {"color": red, "value": 1}


def test_grafana_finds_the_dashboards() -> None:
    """The provisioning files are of the form that Grafana reads, and name one default data source."""
    folder = FOLDER / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())
    providers = yaml.safe_load((folder / "dashboards" / "gateway.yml").read_text())
    assert (sources["apiVersion"], providers["apiVersion"]) == (1, 1)
    assert [(s["type"], s["isDefault"]) for s in sources["datasources"]] == [("prometheus", True)]
    assert [(p["type"], bool(p["options"]["path"])) for p in providers["providers"]] == [("file", True)]
    scraped = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert sources["datasources"][0]["jsonData"]["timeInterval"] == scraped


@pytest.mark.triton
@pytest.mark.parametrize("query", list(queries()), ids=_label)
def test_a_query_has_something_to_show(query: PanelQuery, observed: Observed) -> None:
    """Run as Grafana would, on a Prometheus that watches a gateway under load, it returns data; the only exceptions are
    panels whose title says that their series exist on GPU hosts alone.
    """
    found = observed.prometheus.query(substituted(query.expr, observed.interval), observed.at)
    values = [float(series["value"][1]) for series in found]
    assert query.panel.endswith(GPU_ONLY) or any(value == value for value in values), found  # noqa: PLR0124  # NaN is no data


@pytest.mark.triton
def test_variables_have_values(observed: Observed) -> None:
    """The lists at the top of the dashboards offer routes, families, branches and models."""
    asked = {
        v["definition"]
        for board in BOARDS.values()
        for v in board["templating"]["list"]
        if v["type"] == "query"
    }
    assert len(asked) == 4
    for definition in asked:
        inside = re.fullmatch(r"label_values\((.*), (\w+)\)", definition)
        assert inside
        series = observed.prometheus.query(
            f"group by ({inside[2]}) ({substituted(inside[1], observed.interval)})", observed.at
        )
        assert len(series) > 1, definition
        assert all(one["metric"].get(inside[2]) is not None for one in series if inside[2] != "branch")


@pytest.mark.triton
def test_both_sides_count_the_same_inferences(observed: Observed) -> None:
    """The gateway and Triton count the same inferences, apart from one warm-up per branch."""

    def counted() -> tuple[dict[str, float], dict[str, float]]:
        ours, tritons = (
            {
                one["metric"][label]: float(one["value"][1])
                for one in observed.prometheus.query(f"sum by ({label}) ({name})")
            }
            for label, name in (
                ("branch", "gateway_inferences_total"),
                ("model", "nv_inference_request_success"),
            )
        )
        return ours, tritons

    def agree() -> bool:
        """Both have been scraped after the last inference."""
        ours, tritons = counted()
        return all(tritons.get(branch, 0) - count in (0, 1) for branch, count in ours.items())

    eventually(agree)
    assert len(counted()[0]) > 5


@pytest.mark.parametrize("name", BOARDS)
def test_grafana_s_own_types_know_every_field(name: str) -> None:
    """Read into the classes that Grafana generates from its schema and written again, nothing but what they leave to
    plugins is lost.
    """
    plugins.register_default_plugins()
    written = json.loads(JSONEncoder().encode(Dashboard.from_json(BOARDS[name])))
    assert set(_lost(BOARDS[name], written)) <= PLUGINS_OWN


def _lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Paths of values that are another or gone; empty ones may go."""
    if isinstance(before, dict):
        for key, value in before.items():
            if value not in ([], {}, None, "", False):
                yield from _lost(value, after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for one, other in zip(before, after, strict=True):
            yield from _lost(one, other, f"{path}[]")
    elif before != after:
        yield path
